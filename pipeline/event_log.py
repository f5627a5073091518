"""The service's log, with one event a line.

Modules log with the standard library, ``logging.getLogger(__name__)``: a short sentence, and figures as ``extra``.
``configure_logging`` sets the format of the log.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from concurrent_log_handler import ConcurrentRotatingFileHandler
from typing_extensions import override

from pipeline.domain.tasks.task import Status, Task
from pipeline.errors import ConfigurationError
from pipeline.settings import LoggingSettings

LOGGED_PACKAGES = ("pipeline", "deployments")
"""The loggers that ``configure_logging`` configures; all others keep their configuration."""

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

KEY_PREFIX = "mur_"
"""Prefix of the service's own API keys."""

_SECRET_NAME = re.compile(r"secret|token|password|passwd|authorization|api_?key|cookie|signature", re.IGNORECASE)

_SECRET_TEXT = re.compile(
    r"""(?P<keep>://)[^/\s"']+(?=@)       # user and password of a URL
    |   (?P<bearer>\b(?:Bearer|Basic)\s)[\w.+/=~-]+
    |   \bwhsec_[\w+/=-]+                 # a Standard Webhooks secret
    |   \bsk-[\w-]{8,}                    # a key of an OpenAI-compatible service
    |   \bmur_[\w-]{8,}                   # a key of this service
    """,
    re.VERBOSE | re.IGNORECASE,
)

_PLAIN = re.compile(r"[^\s\"=\\\x00-\x1f\x7f\u0085\u2028\u2029]+")
"""A value of the text format that needs no quotes."""

MASK = "***"

logger = logging.getLogger(__name__)


def configure_logging(settings: LoggingSettings) -> None:
    """Write this project's log to standard error in the configured format, and to a file; may be called again.

    Raises:
        ConfigurationError: the file can't be written.
    """
    formatter = JsonFormatter() if settings.format == "json" else TextFormatter()
    handlers: list[logging.Handler] = [logging.StreamHandler(), *_file_handlers(settings)]
    for handler in handlers:
        handler.setFormatter(formatter)
    before = {handler for package in LOGGED_PACKAGES for handler in logging.getLogger(package).handlers}
    for package in LOGGED_PACKAGES:
        root = logging.getLogger(package)
        root.handlers = list(handlers)
        root.setLevel(settings.level)
        root.propagate = False
    for handler in before:
        handler.close()


def _file_handlers(settings: LoggingSettings) -> list[logging.Handler]:
    """Return the handler of the log file, if one is configured.

    All replicas of a node write to the file, so its rotation takes a lock.
    """
    if settings.file is None:
        return []
    try:
        settings.file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(settings.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
        handler = ConcurrentRotatingFileHandler(
            str(settings.file),
            maxBytes=settings.file_max_bytes,
            backupCount=settings.file_backups,
            encoding="utf-8",
            chmod=0o600,
        )
    except OSError as error:
        raise ConfigurationError(f"logging.file can't be written: {error.strerror}.") from error
    return [handler]


class TextFormatter(logging.Formatter):
    """A formatter that writes ``time level logger message key=value …``: always one line, whatever the values hold."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the event as a line of text."""
        event = _log_fields(record)
        head = f"{event.pop('time')} {event.pop('level')} {event.pop('logger')} {_one_line(event.pop('message'))}"
        return " ".join([head, *(f"{name}={_text(value)}" for name, value in event.items())])


class JsonFormatter(logging.Formatter):
    """A formatter that writes one JSON object a line."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the event as JSON."""
        return json.dumps(_log_fields(record), ensure_ascii=False, default=str)


def log_attempt(
    task: Task,
    stages: Mapping[str, float],
    audio_s: float,
    *,
    outcome: str | None = None,
    wall_s: float | None = None,
) -> None:
    """Log one line that sums up a finished attempt.

    Args:
        task: the task as the attempt left it.
        stages: seconds of each stage.
        audio_s: seconds of audio with a result.
        outcome: outcome of the attempt; ``None`` for the task's status.
        wall_s: seconds of the attempt; ``None`` for the sum of the stages (which may overlap).
    """
    seconds = sum(stages.values()) if wall_s is None else wall_s
    extra = {
        "task_id": task.id,
        "attempt": task.attempts,
        "outcome": outcome or task.status.value,
        "priority": task.priority.value,
        "language": task.language,
        "audio_s": round(audio_s, 3),
        "wall_s": round(seconds, 3),
        "rtfx": round(audio_s / seconds, 2) if seconds > 0 else None,
        **{f"{stage}_s": round(stage_s, 3) for stage, stage_s in stages.items()},
        "error": task.error.code if task.error else None,
    }
    level = logging.WARNING if task.status is Status.FAILED else logging.INFO
    logger.log(level, "attempt", extra={name: value for name, value in extra.items() if value is not None})


def _log_fields(record: logging.LogRecord) -> dict[str, Any]:
    event: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "logger": record.name,
        "message": _masked(record.getMessage()),
    }
    for name, value in vars(record).items():
        if name not in _STANDARD_FIELDS:
            event[name] = _masked(value, name)
    if record.exc_info:
        event["exception"] = _masked(logging.Formatter().formatException(record.exc_info))
    return event


def _masked(value: Any, name: str = "") -> Any:
    """Return a value without secrets, recognized by its name or its text; numbers and booleans do not change."""
    if value is None or isinstance(value, int | float):
        return value
    if _SECRET_NAME.search(name):
        return MASK
    return _SECRET_TEXT.sub(lambda match: f"{match['keep'] or match['bearer'] or ''}{MASK}", str(value))


def _text(value: Any) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _one_line(message: str) -> str:
    return " ".join(message.splitlines())
