"""Create an API key: `python -m deployments.keys new --name archive --scopes read,write`.

The command prints the key once and stores it nowhere. The settings contain only the key's hash, which is no secret.
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
from pipeline.event_log import KEY_PREFIX
from pipeline.settings import KeySettings

KEY_BYTES = 32
"""256 bits can't be guessed, so a plain hash protects the key, and checking a request is cheap."""


def new_key() -> str:
    """Return a new random key. People, log filters and secret scanners recognise it by its prefix."""
    return f"{KEY_PREFIX}{secrets.token_urlsafe(KEY_BYTES)}"


def settings_of(key: str, name: str, scopes: Sequence[Scope]) -> KeySettings:
    """Return the settings entry for a key. Raise ``ValidationError`` if the name is not allowed."""
    return KeySettings(name=name, sha256=(hashlib.sha256(key.encode()).hexdigest(),), scopes=frozenset(scopes))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command: print a new key and its settings entry."""
    parser = argparse.ArgumentParser(prog="python -m deployments.keys", description=__doc__)
    new = parser.add_subparsers(required=True).add_parser("new", help="create a key")
    new.add_argument("--name", required=True, help="name of the client: letters, digits, '.', '_' and '-'")
    new.add_argument(
        "--scopes",
        type=_scopes,
        default=[Scope.READ, Scope.WRITE],
        help="read, write, admin; separated by commas",
    )
    options = parser.parse_args(arguments)
    key = new_key()
    try:
        settings = settings_of(key, options.name, options.scopes)
    except ValidationError as error:
        parser.error(f"--name: {error.errors()[0]['msg']}")
    entry = {"name": settings.name, "sha256": settings.sha256[0], "scopes": sorted(map(str, settings.scopes))}
    content = yaml.safe_dump({"auth": {"keys": [entry]}}, sort_keys=False)
    sys.stdout.write(f"The key of {settings.name}, shown only now:\n\n  {key}\n\nFor the settings file:\n\n{content}")


def _scopes(text: str) -> list[Scope]:
    try:
        return [Scope(part.strip()) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of scopes ({', '.join(Scope)})") from error


if __name__ == "__main__":
    main()
