"""Which adapter stands behind which port. Called on the replica that uses it, never at import."""

from __future__ import annotations

from pipeline.asr.vad import SileroVad
from pipeline.clock import SystemClock
from pipeline.crawl.crawler import LocalCrawler
from pipeline.crawl.extractors import ExtractorProcesses
from pipeline.domain.task import Status
from pipeline.errors import DatabaseUnavailable, TaskNotFound
from pipeline.media.split import StreamingSplitter
from pipeline.media.store import FsspecMediaStore
from pipeline.ports import CrawlRequest, TaskStore
from pipeline.settings import Settings
from pipeline.store.store import SqlTaskStore

QUIET = {"enable_access_log": False}
"""Serve's logging of deployments that only other deployments call: a line a call would drown what matters."""


def task_store(settings: Settings) -> SqlTaskStore:
    """The task store the settings name."""
    return SqlTaskStore(
        settings.database_url,
        SystemClock(),
        busy_timeout_s=settings.database.busy_timeout_s,
        idempotency_ttl_s=settings.database.idempotency_ttl_s,
        ageing_s=settings.dispatch.ageing_s,
        max_attempts=settings.dispatch.max_attempts,
    )


def media_store(settings: Settings) -> FsspecMediaStore:
    """The media store the settings name."""
    return FsspecMediaStore(settings.media_url)


def splitter(settings: Settings) -> StreamingSplitter:
    """A splitter in this process."""
    return StreamingSplitter(
        media_store(settings), SileroVad, settings.vad, settings.split, settings.media.max_duration_s
    )


def crawler(settings: Settings, store: TaskStore, processes: ExtractorProcesses) -> LocalCrawler:
    """A crawler in this process, which asks the store whether its tasks still run."""

    async def held(request: CrawlRequest) -> bool:
        try:
            task = await store.get(request.task_id)
        except TaskNotFound:
            return False
        except DatabaseUnavailable:
            return True  # the Dispatcher, which can't write either, decides by the lease
        return task.status is Status.PROCESSING and task.fence == request.fence

    return LocalCrawler(media_store(settings), processes, settings, held, SystemClock())
