"""The catalogue of the service's metrics. Modules record them through the port ``ports.Metrics``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

SECONDS_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Bounds of histograms of seconds: two per decade, from a short request to a long file."""

SHARE_BUCKETS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
WINDOW_BUCKETS = (5.0, 10.0, 12.5, 15.0, 17.5, 20.0, 25.0, 30.0)


class MetricKind(StrEnum):
    """The kind of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that ``ports.Metrics`` may be called with.

    Attributes:
        help: description, with its unit.
        labels: names of the labels of each value; exactly these are given.
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
        Metric("tasks_finished", MetricKind.COUNTER, "Finished tasks, by status.", ("status",)),
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
        Metric("queued_tasks", MetricKind.GAUGE, "Waiting tasks, by priority.", ("priority",)),
        Metric(
            "oldest_task_seconds",
            MetricKind.GAUGE,
            "Age in seconds of the oldest waiting task, by priority.",
            ("priority",),
        ),
        Metric("processing_tasks", MetricKind.GAUGE, "Running tasks."),
        Metric(
            "pending_audio_seconds",
            MetricKind.GAUGE,
            "Seconds of audio of waiting and running tasks that are not decoded yet.",
        ),
        Metric("waiting_for_space", MetricKind.GAUGE, "Tasks that wait for free space in the media store."),
        Metric(
            "postponed_attempts",
            MetricKind.COUNTER,
            "Attempts that were postponed, by the error to wait for.",
            ("code",),
        ),
        Metric("waiting_callbacks", MetricKind.GAUGE, "Callbacks still to be delivered."),
        Metric("waiting_chunks", MetricKind.GAUGE, "Chunks that wait for a replica."),
        Metric("replicas", MetricKind.GAUGE, "Replicas that accept work."),
        Metric("left_tasks", MetricKind.GAUGE, "Tasks whose record only a newer version of this software can read."),
        Metric("unreadable_records", MetricKind.COUNTER, "Damaged rows read from the database.", ("table", "column")),
        Metric(
            "loop_errors", MetricKind.COUNTER, "Rounds of a background loop that failed because of a defect.", ("loop",)
        ),
        Metric("lost_units", MetricKind.COUNTER, "Units whose replica died or stopped responding."),
        Metric("lost_leases", MetricKind.COUNTER, "Tasks whose lease passed to another owner while they ran."),
        Metric("audio_seconds", MetricKind.COUNTER, "Seconds of audio decoded."),
        Metric("batch_size", MetricKind.HISTOGRAM, "Chunks decoded together.", (), (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        Metric(
            "batch_fill",
            MetricKind.HISTOGRAM,
            "Size of a batch as a share of the largest one allowed.",
            (),
            SHARE_BUCKETS,
        ),
        Metric(
            "window_seconds",
            MetricKind.HISTOGRAM,
            "Seconds of the window of a batch.",
            (),
            WINDOW_BUCKETS,
        ),
        Metric("rtfx", MetricKind.GAUGE, "Seconds of audio that a replica finishes per second of work."),
        Metric("batch_seconds", MetricKind.HISTOGRAM, "Seconds for decoding one batch.", (), SECONDS_BUCKETS),
        Metric("uncovered_stretches", MetricKind.COUNTER, "Spans of uncovered speech that were decoded again."),
        Metric("gated_chunks", MetricKind.COUNTER, "Chunks rejected by the quality gate, by reason.", ("reason",)),
        Metric("summaries_finished", MetricKind.COUNTER, "Finished summaries, by outcome.", ("outcome",)),
        Metric("summary_seconds", MetricKind.HISTOGRAM, "Seconds of one attempt at a summary.", (), SECONDS_BUCKETS),
        Metric(
            "llm_tokens", MetricKind.COUNTER, "Tokens sent to the language model and written by it.", ("direction",)
        ),
        Metric("llm_cost", MetricKind.COUNTER, "Cost of the language model by the configured prices."),
        Metric("callback_attempts", MetricKind.COUNTER, "Deliveries of callbacks, by outcome.", ("outcome",)),
        Metric(
            "callback_seconds",
            MetricKind.HISTOGRAM,
            "Seconds until the receiver of a callback responded.",
            (),
            SECONDS_BUCKETS,
        ),
        Metric(
            "requests_refused",
            MetricKind.COUNTER,
            "Requests refused because of those in progress, by error.",
            ("reason",),
        ),
        Metric("answers_given_up", MetricKind.COUNTER, "Responses abandoned because the client did not read them."),
    )
}
"""All metrics by name."""
