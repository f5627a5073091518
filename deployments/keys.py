"""Makes a key: `python -m deployments.keys new --name archive --scopes read,write`.

The key is printed once and kept nowhere; its hash, which is no secret, goes into the settings.
"""

from __future__ import annotations

import argparse
import hashlib
import secrets
import sys
from collections.abc import Sequence

import yaml
from pydantic import ValidationError

from pipeline.domain.tasks.client import Scope
from pipeline.observability import KEY_PREFIX
from pipeline.settings import KeySettings

KEY_BYTES = 32
"""256 bits: nobody guesses that, so a plain hash keeps it safe and a request's check is cheap."""


def new_key() -> str:
    """A fresh key. Its prefix tells people, log filters and secret scanners what it is."""
    return f"{KEY_PREFIX}{secrets.token_urlsafe(KEY_BYTES)}"


def settings_of(key: str, name: str, scopes: Sequence[Scope]) -> KeySettings:
    """What the settings say about a key. Raises ``ValidationError`` for a name that can't be."""
    return KeySettings(name=name, sha256=(hashlib.sha256(key.encode()).hexdigest(),), scopes=frozenset(scopes))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m deployments.keys", description=__doc__)
    new = parser.add_subparsers(required=True).add_parser("new", help="make a key")
    new.add_argument("--name", required=True, help="its holder: letters, digits, '.', '_' and '-'")
    new.add_argument("--scopes", type=_scopes, default=[Scope.READ, Scope.WRITE], help="of read, write, admin")
    asked = parser.parse_args(arguments)
    key = new_key()
    try:
        settings = settings_of(key, asked.name, asked.scopes)
    except ValidationError as error:
        parser.error(f"--name: {error.errors()[0]['msg']}")
    entry = {"name": settings.name, "sha256": settings.sha256[0], "scopes": sorted(map(str, settings.scopes))}
    shown = yaml.safe_dump({"auth": {"keys": [entry]}}, sort_keys=False)
    sys.stdout.write(f"The key of {settings.name}, shown only now:\n\n  {key}\n\nFor the settings file:\n\n{shown}")


def _scopes(text: str) -> list[Scope]:
    try:
        return [Scope(part.strip()) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not made of {', '.join(Scope)}") from error


if __name__ == "__main__":
    main()
