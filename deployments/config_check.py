"""Finds keys of a Serve config that Serve doesn't know; it would ignore them without a word.

A ``numreplicas: 2`` deploys one replica and reports success, because Serve's schemas drop what they don't know
(Ray 2.60, ``ray/serve/schema.py``). Free-form values (``args``, ``user_config``, ``runtime_env``) are not looked into.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema


def unknown_keys(config: Mapping[str, Any]) -> list[str]:
    """The keys Serve would ignore, each as a dotted path and, where one is near, the name that was meant.

    Args:
        config: the parsed content of a file for ``serve run`` or ``serve deploy``.

    Returns:
        Entries like ``applications.murmuration.deployments.Ingress.numreplicas (num_replicas?)``; empty if all is well.
    """
    return list(_unknown(config, ServeDeploySchema, ()))


def _unknown(value: Any, schema: type[BaseModel], path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            field = schema.model_fields.get(key)
            if field is None:
                yield ".".join((*path, f"{key}{_suggestion(key, schema)}"))
            elif inner := _schema_in(field.annotation):
                yield from _unknown(item, inner, (*path, key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, item in enumerate(value):
            yield from _unknown(item, schema, (*path, _name_of(item, index)))


def _schema_in(annotation: Any) -> type[BaseModel] | None:
    """The schema behind an annotation such as ``Optional[List[DeploymentSchema]]``; ``None`` for free-form values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((inner for argument in get_args(annotation) if (inner := _schema_in(argument))), None)


def _name_of(item: Any, index: int) -> str:
    return str(item.get("name", index)) if isinstance(item, Mapping) else str(index)


def _suggestion(key: str, schema: type[BaseModel]) -> str:
    near = difflib.get_close_matches(str(key), schema.model_fields, n=1)
    return f" ({near[0]}?)" if near else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m deployments.config_check serve_config.yaml``: names the unknown keys; 1 if there are any."""
    [file] = sys.argv[1:] if arguments is None else arguments
    unknown = unknown_keys(yaml.safe_load(Path(file).read_text()))
    for key in unknown:
        sys.stderr.write(f"{file}: Serve does not know {key}\n")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
