"""The dependencies of the HTTP surface on the rest of the service, as one value that tests build from fakes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from deployments.api.concurrency.background_tasks import BackgroundTasks
from deployments.api.concurrency.event_loop import WorkerThreads
from pipeline.domain.confinement_level import Confinement
from pipeline.domain.tasks.client import Client
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
from pipeline.usecases.tasks.client_scope import ClientScopedTasks


@dataclass(frozen=True, slots=True)
class Readiness:
    """The service's readiness to transcribe recordings.

    Attributes:
        ready: a replica of this version has loaded its model and decoded with it.
        waiting_for: if not ready, what is missing, each in words that follow "waiting for" (``a GPU node``).
        engine: the loaded engine, once it is known.
        problems: the reasons why this configuration can't serve this cluster or why no task is processed, a sentence
            each.
        failure_messages: background failures that do not stop the processing of tasks, a sentence each.
    """

    ready: bool
    waiting_for: tuple[str, ...] = ()
    engine: EngineInfo | None = None
    problems: tuple[str, ...] = ()
    failure_messages: tuple[str, ...] = ()


async def _no_metrics() -> str:
    """Return no metrics, for services that export none."""
    return ""


def _count_nothing(name: str, value: float = 1.0, **labels: str) -> None:
    """Ignore the count, for services that record no metrics."""


class CountMetric(Protocol):
    """A function that adds to a counter of ``pipeline.metric_catalogue``, such as ``ports.Metrics.count``."""

    def __call__(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add ``value`` to the counter."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The dependencies of the HTTP surface.

    Attributes:
        store: all tasks. A request sees only those of its client (``services_for``).
        uploads: the state of resumable uploads.
        media: the media store.
        settings: the settings of the service.
        clock: the source of times and pauses.
        wake: notifies the Dispatcher of new work. This is a hint, since the Dispatcher also polls; it must not raise.
        watch: takes a task's id, the number of the last change seen (-1: none) and a timeout in seconds. Returns the
            number of the latest change as soon as it differs, or after the timeout. This is a hint: callers then read
            the task.
        watch_end: returns when the task has finished, or after the timeout in seconds. This is a hint.
        cancel: notifies the Dispatcher that a task was cancelled or deleted. This is a hint.
        readiness: returns the present readiness.
        engine: returns the loaded engine, or ``None`` while it is unknown. Called for requests that name a language or
            a model.
        summarizer: writes summaries while the client waits.
        check_url: takes a URL and the name of its field. Raises ``UrlNotAllowed`` if the outbound guard refuses it.
        extractor: extracts the audio of recordings.
        metrics: returns the cluster's metrics in Prometheus's text format.
        count: adds to a counter.
        knows_addresses: whether the address of a request is the client's, and not that of a proxy in between.
        capacity: the number of requests that Serve hands to this process at the same time.
        fetch_available: whether recordings can be fetched from a ``file_url``.
        background: runs work that continues after the request that started it.
        workers: threads for work that would block the event loop.
        confinement: the confinement of decoders on this node; ``None`` if it was not tried.
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
    background: BackgroundTasks = field(default_factory=BackgroundTasks)
    workers: WorkerThreads = field(default_factory=WorkerThreads)
    confinement: Confinement | None = None


def services_for(services: Services, client: Client | None) -> Services:
    """Return the services with a store that shows only the client's own tasks."""
    if client is None or client.sees_all_tasks:
        return services
    return replace(services, store=ClientScopedTasks(services.store, client))
