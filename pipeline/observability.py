"""What can be seen of the service from outside: its metrics by name, and its log, one event a line.

Modules log with the standard library, ``logging.getLogger(__name__)``, a short sentence and their figures as
``extra``. ``configure_logging`` decides how that is written. Metrics go through the port ``ports.Metrics``.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from concurrent_log_handler import ConcurrentRotatingFileHandler

from pipeline.domain.tasks.task import Status, Task
from pipeline.errors import ConfigurationError
from pipeline.settings import LoggingSettings

LOGGED_PACKAGES = ("pipeline", "deployments")
"""The loggers that are configured; everybody else's are left alone."""

SECONDS_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Bounds of histograms of times: two a decade, from a short request to a long file."""


SHARE_BUCKETS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
WINDOW_BUCKETS = (5.0, 10.0, 12.5, 15.0, 17.5, 20.0, 25.0, 30.0)


class MetricKind(StrEnum):
    """How a metric behaves."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: what ``ports.Metrics`` may be called with.

    Attributes:
        help: what it says, with its unit.
        labels: exactly the labels each value carries.
        bounds: upper bounds of a histogram's buckets.
    """

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("tasks_finished", MetricKind.COUNTER, "Tasks that ended, by how.", ("status",)),
        Metric(
            "task_seconds",
            MetricKind.HISTOGRAM,
            "Seconds from a task's creation to its end.",
            ("priority",),
            SECONDS_BUCKETS,
        ),
        Metric(
            "stage_seconds", MetricKind.HISTOGRAM, "Seconds an attempt spent in a stage.", ("stage",), SECONDS_BUCKETS
        ),
        Metric("queued_tasks", MetricKind.GAUGE, "Tasks that wait to be run.", ("priority",)),
        Metric(
            "oldest_task_seconds",
            MetricKind.GAUGE,
            "Age in seconds of the oldest task that waits to be run.",
            ("priority",),
        ),
        Metric("processing_tasks", MetricKind.GAUGE, "Tasks that run."),
        Metric(
            "pending_audio_seconds", MetricKind.GAUGE, "Seconds of audio that wait and run and are not decoded yet."
        ),
        Metric("waiting_for_space", MetricKind.GAUGE, "Tasks that wait until the media store has room."),
        Metric(
            "postponed_attempts",
            MetricKind.COUNTER,
            "Attempts that ended because something has to be waited for.",
            ("code",),
        ),
        Metric("waiting_callbacks", MetricKind.GAUGE, "Callbacks still to be delivered."),
        Metric("waiting_chunks", MetricKind.GAUGE, "Chunks that wait for a replica."),
        Metric("replicas", MetricKind.GAUGE, "Replicas that can take work."),
        Metric("left_tasks", MetricKind.GAUGE, "Tasks whose record only a newer version of this software can read."),
        Metric(
            "unreadable_records", MetricKind.COUNTER, "Damaged rows of the database that were met.", ("table", "column")
        ),
        Metric("loop_errors", MetricKind.COUNTER, "Rounds of a background loop that failed by a defect.", ("loop",)),
        Metric("lost_units", MetricKind.COUNTER, "Units whose replica died or fell silent."),
        Metric("lost_leases", MetricKind.COUNTER, "Tasks that passed to another owner while they ran."),
        Metric("audio_seconds", MetricKind.COUNTER, "Seconds of audio decoded."),
        Metric("batch_size", MetricKind.HISTOGRAM, "Chunks decoded together.", (), (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        Metric(
            "batch_fill",
            MetricKind.HISTOGRAM,
            "Share of the largest batch allowed that a batch filled.",
            (),
            SHARE_BUCKETS,
        ),
        Metric(
            "window_seconds",
            MetricKind.HISTOGRAM,
            "Seconds of the window that a batch was encoded in.",
            (),
            WINDOW_BUCKETS,
        ),
        Metric("rtfx", MetricKind.GAUGE, "Seconds of audio a replica finishes per second it works."),
        Metric("batch_seconds", MetricKind.HISTOGRAM, "Seconds one batch took.", (), SECONDS_BUCKETS),
        Metric("uncovered_stretches", MetricKind.COUNTER, "Stretches of speech without words, decoded again."),
        Metric("gated_chunks", MetricKind.COUNTER, "Chunks sent round again by the quality gate.", ("reason",)),
        Metric("summaries_finished", MetricKind.COUNTER, "Summaries that ended, by how.", ("outcome",)),
        Metric("summary_seconds", MetricKind.HISTOGRAM, "Seconds one attempt at a summary took.", (), SECONDS_BUCKETS),
        Metric(
            "llm_tokens", MetricKind.COUNTER, "Tokens sent to the language model and written by it.", ("direction",)
        ),
        Metric("llm_cost", MetricKind.COUNTER, "Cost of the language model by the configured prices."),
        Metric("callback_attempts", MetricKind.COUNTER, "Attempts to deliver a callback, by outcome.", ("outcome",)),
        Metric("callback_seconds", MetricKind.HISTOGRAM, "Seconds until a receiver answered.", (), SECONDS_BUCKETS),
        Metric("requests_refused", MetricKind.COUNTER, "Requests refused for those under way, by error.", ("reason",)),
        Metric("answers_given_up", MetricKind.COUNTER, "Answers whose client did not read them."),
    )
}
"""Every metric there is."""


class NoMetrics:
    """Metrics for where nobody looks; satisfies ``ports.Metrics``."""

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Forgets it."""

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Forgets it."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Forgets it."""


# --- logs -------------------------------------------------------------------------------------------------------------

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

KEY_PREFIX = "mur_"
"""What the service's own keys begin with."""

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
    """Writes this project's log to standard error in the format asked for, and to a file; may be called again.

    Other packages' loggers, Serve's among them, keep their own handlers.

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
    """The log file, if there is to be one. Every replica of a node writes to it, so turning it over takes a lock."""
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
    """``time level logger message key=value …``: one line, whatever the values hold."""

    def format(self, record: logging.LogRecord) -> str:
        """The event as a line of text."""
        event = _log_fields(record)
        head = f"{event.pop('time')} {event.pop('level')} {event.pop('logger')} {_one_line(event.pop('message'))}"
        return " ".join([head, *(f"{name}={_text(value)}" for name, value in event.items())])


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The event as JSON."""
        return json.dumps(_log_fields(record), ensure_ascii=False, default=str)


def log_attempt(
    task: Task,
    stages: Mapping[str, float],
    audio_s: float,
    *,
    outcome: str | None = None,
    wall_s: float | None = None,
) -> None:
    """Writes the one line that sums up a finished attempt.

    Args:
        task: as the attempt left it.
        stages: seconds each stage took.
        audio_s: seconds of audio with a result.
        outcome: how it ended; the task's status unless given.
        wall_s: seconds the attempt took; the sum of the stages unless given (they may overlap).
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
    """The value without what looks like a secret, by its name or in its text; numbers and booleans as they are."""
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
