"""What the HTTP surface needs from the rest of the service, as one value that tests build from fakes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from deployments.api.concurrency.background_tasks import BackgroundTasks
from deployments.api.concurrency.event_loop import WorkerThreads
from pipeline.domain.confinement_level import Confinement
from pipeline.ports import (
    AudioExtractor,
    Clock,
    EngineInfo,
    MediaStore,
    Summarizer,
    TaskRecords,
    UploadStore,
)
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether recordings can be transcribed now.

    Attributes:
        ready: a replica of this version has loaded its model and decoded with it.
        waiting_for: otherwise, what is missing, each as words that follow "waiting for" (``a GPU node``).
        engine: what runs, once that is known.
        problems: why this configuration can't serve this cluster, or no task is worked at, a sentence each.
        failure_messages: what fails in the background although tasks are worked at, a sentence each.
    """

    ready: bool
    waiting_for: tuple[str, ...] = ()
    engine: EngineInfo | None = None
    problems: tuple[str, ...] = ()
    failure_messages: tuple[str, ...] = ()


async def _no_metrics() -> str:
    """For where nothing is exported."""
    return ""


def _count_nothing(name: str, value: float = 1.0, **labels: str) -> None:
    """For where nothing is counted."""


class CountMetric(Protocol):
    """Adds to a counter of ``pipeline.observability``; ``ports.Metrics.count``."""

    def __call__(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Count."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The HTTP surface's view of the service.

    Attributes:
        store: every task; a request sees only its client's (see ``deployments.api.middleware.auth``).
        uploads: the state of resumable uploads.
        wake: tells the Dispatcher that there is work. A hint (the Dispatcher also polls), so it must not raise.
        watch: takes a task's id, the number of the latest news seen of it (-1: none) and seconds; returns the number
            of the latest news as soon as it is another, or the seconds are over. A hint too: callers read the task.
        watch_end: returns when the task has finished, or the seconds are over. Likewise a hint.
        cancel: tells the Dispatcher that a task was cancelled or deleted. A hint.
        readiness: what is ready now.
        engine: what is loaded, or ``None`` before that is known; asked by requests that name a language or a model.
        summarizer: writes summaries while the client waits.
        check_url: raises ``UrlNotAllowed`` for a URL that the outbound guard refuses; takes the field's name too.
        metrics: the cluster's metrics in Prometheus's text format.
        count: adds to a counter.
        extractor: takes the sound out of recordings.
        knows_addresses: whether the address of a request is its client's, not that of a proxy in between.
        capacity: requests that are handed to this process at the same time.
        fetch_available: whether recordings can be fetched from a ``file_url``.
        errands: what outlives the request that sent it.
        workers: threads for what would hold up the event loop.
        confinement: what confinement of decoders holds on this node; ``None`` where it was not tried.
    """

    store: TaskRecords
    uploads: UploadStore
    media: MediaStore
    settings: Settings
    clock: Clock
    wake: Callable[[], Awaitable[None]]
    watch: Callable[[int, int, float], Awaitable[int]]
    watch_end: Callable[[int, float], Awaitable[None]]
    cancel: Callable[[int], Awaitable[None]]
    readiness: Callable[[], Awaitable[Readiness]]
    engine: Callable[[], Awaitable[EngineInfo | None]]
    summarizer: Summarizer
    check_url: Callable[[str, str], Awaitable[None]]
    extractor: AudioExtractor
    metrics: Callable[[], Awaitable[str]] = _no_metrics
    count: CountMetric = _count_nothing
    knows_addresses: bool = True
    capacity: int = 1000
    fetch_available: bool = False
    errands: BackgroundTasks = field(default_factory=BackgroundTasks)
    workers: WorkerThreads = field(default_factory=WorkerThreads)
    confinement: Confinement | None = None
