"""The dependencies of the HTTP surface on the rest of the service, as one value that tests build from fakes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from fastapi import Request

from deployments.api.concurrency.background_tasks import BackgroundTasks
from deployments.api.concurrency.event_loop import FairSemaphore, WorkerThreads
from pipeline.domain.confinement_level import Confinement
from pipeline.domain.tasks.client import Client
from pipeline.ports import (
    AudioExtractor,
    Clock,
    EngineInfo,
    MediaStore,
    Summarizer,
    TaskRecords,
    TaskSignals,
    UploadStore,
)
from pipeline.settings import Settings
from pipeline.usecases.tasks.client_scope import ClientScopedTasks
from pipeline.usecases.tasks.resumable_uploads import ResumableUploads
from pipeline.usecases.tasks.submit import Submitter


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
        submitter: creates tasks of uploads and links.
        uploads: receives resumable uploads.
        media: the media store.
        settings: the settings of the service.
        clock: the source of times and pauses.
        dispatcher: signals to the Dispatcher, and waits for changes of tasks.
        readiness: returns the present readiness.
        engine: returns the loaded engine, or ``None`` while it is unknown. Called for requests that name a language or
            a model.
        summarizer: writes summaries while the client waits.
        extractor: extracts the audio of recordings.
        transcript_slots: limit how many transcripts are read and serialised at the same time.
        stream_slots: limit how many event streams hold a finished transcript at the same time.
        metrics: returns the cluster's metrics in Prometheus's text format.
        count: adds to a counter.
        knows_addresses: whether the address of a request is the client's, and not that of a proxy in between.
        capacity: the number of requests that Serve hands to this process at the same time.
        background: runs work that continues after the request that started it.
        workers: threads for work that would block the event loop.
        confinement: the confinement of decoders on this node; ``None`` if it was not tried.
    """

    store: TaskRecords
    submitter: Submitter
    uploads: ResumableUploads
    media: MediaStore
    settings: Settings
    clock: Clock
    dispatcher: TaskSignals
    readiness: Callable[[], Awaitable[Readiness]]
    engine: Callable[[], Awaitable[EngineInfo | None]]
    summarizer: Summarizer
    extractor: AudioExtractor
    transcript_slots: FairSemaphore
    stream_slots: FairSemaphore
    metrics: Callable[[], Awaitable[str]] = _no_metrics
    count: CountMetric = _count_nothing
    knows_addresses: bool = True
    capacity: int = 1000
    background: BackgroundTasks = field(default_factory=BackgroundTasks)
    workers: WorkerThreads = field(default_factory=WorkerThreads)
    confinement: Confinement | None = None


def services_of(request: Request) -> Services:
    """Return the services of the application that received a request. Only this function reads ``app.state``."""
    services = request.app.state.services
    assert isinstance(services, Services)  # noqa: S101 (set by connect)
    return services


def services_for(services: Services, client: Client | None) -> Services:
    """Return the services with a store that shows only the client's own tasks."""
    if client is None or client.sees_all_tasks:
        return services
    return replace(services, store=ClientScopedTasks(services.store, client))


def build_submitter(
    settings: Settings,
    store: TaskRecords,
    media: MediaStore,
    dispatcher: TaskSignals,
    clock: Clock,
    check_url: Callable[[str, str], Awaitable[None]],
) -> Submitter:
    """Return a submitter under the limits of the settings.

    Args:
        settings: the settings of the service.
        store: stores the tasks.
        media: stores the recordings.
        dispatcher: is woken after each submission.
        clock: the source of times and pauses.
        check_url: takes a URL and the name of its field. Raises ``UrlNotAllowed`` if the outbound guard refuses it.
    """
    return Submitter(
        store,
        media,
        dispatcher.wake,
        clock=clock,
        max_upload_bytes=settings.media.max_upload_bytes,
        max_queued_tasks=settings.dispatch.max_queued_tasks,
        max_queued_audio_s=settings.dispatch.max_queued_audio_s,
        orphan_age_s=settings.media.orphan_age_s,
        fetch_available=settings.crawl.enabled,
        check_url=check_url,
        llm=settings.llm,
    )


def build_uploads(settings: Settings, store: UploadStore, media: MediaStore, clock: Clock) -> ResumableUploads:
    """Return a receiver of resumable uploads under the limits of the settings."""
    return ResumableUploads(
        store, media, clock, max_upload_bytes=settings.media.max_upload_bytes, ttl_s=settings.http.resumable_ttl_s
    )
