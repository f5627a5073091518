"""Check for keys of a Serve config that Serve does not know and ignores silently.

A ``numreplicas: 2`` deploys one replica and reports success, because Serve's schemas drop unknown keys (Ray 2.60,
``ray/serve/schema.py``). The check does not read free-form values (``args``, ``user_config``, ``runtime_env``).

The ``serve`` command reads the file and passes on known keys only, so the application never receives a misspelt one.
Therefore ``refuse_unknown_keys`` reads the file again, from the ``serve run`` process that started this application.
``python -m deployments.deploy`` runs the check before it deploys.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from pipeline.errors import ConfigurationError


def unknown_keys(config: Mapping[str, Any]) -> list[str]:
    """Return the keys that Serve would ignore, each as a dotted path with the closest known name, if one is similar.

    Args:
        config: the parsed content of a file for ``serve run`` or ``serve deploy``.

    Returns:
        Entries like ``applications.murmuration.deployments.Ingress.numreplicas (num_replicas?)``; empty if
            Serve knows all keys.
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
    """Return the schema in an annotation such as ``Optional[List[DeploymentSchema]]``; ``None`` for other values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((inner for argument in get_args(annotation) if (inner := _schema_in(argument))), None)


def _name_of(item: Any, index: int) -> str:
    return str(item.get("name", index)) if isinstance(item, Mapping) else str(index)


def _suggestion(key: str, schema: type[BaseModel]) -> str:
    near = difflib.get_close_matches(str(key), schema.model_fields, n=1)
    return f" ({near[0]}?)" if near else ""


def read_config(file: Path) -> dict[str, Any]:
    """Return the content of a Serve config.

    Raises:
        ConfigurationError: the file can't be read, or is not a YAML mapping.
    """
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"The Serve config can't be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The Serve config is not YAML: {error}.") from error
    if not isinstance(content, dict):
        raise ConfigurationError("The Serve config must be a YAML mapping, with keys such as `applications:`.")
    return content


def refuse_unknown_keys(processes: Iterable[tuple[Sequence[str], Path]]) -> None:
    """Refuse to start under a ``serve run`` whose config has keys that Serve ignores.

    Args:
        processes: command line and working directory of each process that may have started this application.

    Raises:
        ConfigurationError: there are such keys; the message names them.
    """
    for command, folder in processes:
        file = config_of(command, folder)
        if file is not None and file.is_file() and (unknown := unknown_keys(read_config(file))):
            raise ConfigurationError(f"{file.name} has keys that Serve does not know: {', '.join(unknown)}.")


def config_of(command: Sequence[str], folder: Path) -> Path | None:
    """Return the config file of a ``serve run FILE`` command; ``None`` for any other command."""
    words = [PurePath(word).name for word in command[:4]]
    is_serve = "serve" in words or "ray.serve.scripts" in words
    if not (is_serve and "run" in command):
        return None
    named = [word for word in command if word.endswith((".yaml", ".yml"))]
    return folder / named[-1] if named else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the unknown keys of ``python -m deployments.config_check FILE`` and return 1, or 0 if there are none."""
    [file] = sys.argv[1:] if arguments is None else arguments
    unknown = unknown_keys(read_config(Path(file)))
    for key in unknown:
        sys.stderr.write(f"{file}: Serve does not know {key}\n")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
