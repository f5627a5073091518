"""Loading of the settings from a file and the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_settings import SettingsError

from pipeline.errors import ConfigurationError
from pipeline.settings.root import Settings


def load_settings(file: Path | None = None, **overrides: Any) -> Settings:
    """Load settings from a YAML file and the environment.

    Args:
        file: the YAML file; ``None`` for the defaults.
        overrides: top-level values that take precedence over the file's.

    Raises:
        ConfigurationError: a name or value is invalid; the message names it.
    """
    try:
        settings = Settings(**(_content(file) | overrides))
    except ValidationError as error:
        raise ConfigurationError(_sentence(error)) from error
    except SettingsError as error:
        raise ConfigurationError(f"A MURMURATION_… variable does not hold valid JSON: {error}.") from error
    if not settings.data_dir.is_absolute():
        raise ConfigurationError("data_dir must be an absolute path: a replica's working directory is not yours.")
    return settings


def _content(file: Path | None) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text("utf-8")) if file else None
    except OSError as error:
        raise ConfigurationError(f"The settings file can't be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The settings file is not YAML: {error}.") from error
    if content is not None and not (isinstance(content, dict) and all(isinstance(name, str) for name in content)):
        raise ConfigurationError("The settings file must hold names and values, such as `asr:` with `model:` below it.")
    return content or {}


def _sentence(error: ValidationError) -> str:
    problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return f"These settings can't be used: {problems}."
