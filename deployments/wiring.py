"""Which adapter stands behind which port. Called on the replica that uses it, never at import."""

from __future__ import annotations

from pipeline.asr.vad import SileroVad
from pipeline.clock import SystemClock
from pipeline.media.split import StreamingSplitter
from pipeline.media.store import FsspecMediaStore
from pipeline.settings import Settings
from pipeline.store.store import SqlTaskStore
from pipeline.store.uploads import SqlUploadStore

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


def upload_store(store: SqlTaskStore) -> SqlUploadStore:
    """The state of resumable uploads, in the task store's database."""
    return SqlUploadStore(store.database, SystemClock())


def media_store(settings: Settings) -> FsspecMediaStore:
    """The media store the settings name."""
    return FsspecMediaStore(settings.media_url)


def splitter(settings: Settings) -> StreamingSplitter:
    """A splitter in this process."""
    return StreamingSplitter(
        media_store(settings), SileroVad, settings.vad, settings.split, settings.media.max_duration_s
    )
