"""A service on a disk whose power is cut: it writes each promise, as JSON, once it has given it.

Run as ``python -m tests.e2e.power_cut_service <folder>`` until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from pathlib import Path

from pipeline.domain.decoding.transcript import Transcript, TranscriptInfo
from pipeline.domain.tasks.submission import Submission
from pipeline.domain.tasks.task import IdempotencyClaim, NewTask, Priority
from pipeline.media.media_store import FsspecMediaStore
from pipeline.ports import Lease
from pipeline.settings import LlmSettings, Settings
from pipeline.store.sql_task_store import SqlTaskStore
from pipeline.store.upload_store import SqlUploadStore
from pipeline.system_clock import SystemClock
from pipeline.usecases.tasks.resumable_uploads import ResumableUploads
from pipeline.usecases.tasks.submit import Submitter

LIMIT_BYTES = 2**30
TRANSCRIPT = Transcript("kept", (), TranscriptInfo("en", 1.0, 1.0, 1.0, None, {}, {}))


def content(number: int) -> bytes:
    """Make bytes that no other number has, some kilobytes or some hundred."""
    source = random.Random(number)  # the same at each call
    return source.randbytes(source.choice((3_000, 200_000)))


def task_store(folder: Path) -> SqlTaskStore:
    return SqlTaskStore(
        f"sqlite+aiosqlite:///{folder / 'tasks.db'}",
        SystemClock(),
        busy_timeout_s=5.0,
        idempotency_ttl_s=3600.0,
        ageing_s=600.0,
        max_losses=3,
        durability=Settings().database.durability,
    )


def media_store(folder: Path) -> FsspecMediaStore:
    return FsspecMediaStore((folder / "media").as_uri())


async def _ignore(*_: object) -> None:
    return None


async def _blocks(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _promise(kind: str, **facts: object) -> None:
    sys.stdout.write(json.dumps({"kind": kind, **facts}) + "\n")
    sys.stdout.flush()


async def serve(folder: Path) -> None:
    store, media = task_store(folder), media_store(folder)
    await store.migrate()
    submitter = Submitter(
        store,
        media,
        _ignore,
        clock=SystemClock(),
        max_upload_bytes=LIMIT_BYTES,
        max_queued_tasks=10**6,
        fetch_available=False,
        check_url=_ignore,
        llm=LlmSettings(),
    )
    uploads = ResumableUploads(
        SqlUploadStore(store.database, SystemClock()), media, SystemClock(), max_upload_bytes=LIMIT_BYTES, ttl_s=3600.0
    )
    _promise("ready")
    await asyncio.gather(_take_in(submitter), _resume(uploads), _finish(store), _end(store))


async def _take_in(submitter: Submitter) -> None:
    for number in count():
        task = await submitter.submit(Submission(), content(number))
        _promise("task", id=task.id, number=number)


async def _resume(uploads: ResumableUploads) -> None:
    for number in count(10_000, 2):
        upload = await uploads.create(2 * LIMIT_BYTES // 4, {})
        for part in (number, number + 1):
            upload = await uploads.append(upload, upload.received_bytes, _blocks(content(part)))
            _promise("upload", id=upload.id, numbers=list(range(number, part + 1)), received=upload.received_bytes)


async def _finish(store: SqlTaskStore) -> None:
    for number in count():
        claim = IdempotencyClaim(f"key {number}", "0" * 64)
        new = NewTask(media_prefix=f"done{number}", priority=Priority.HIGH, callback_url="https://example.com/hook")
        await store.create(new, claim)
        [task] = await store.claim("me", timedelta(minutes=5), 1, (Priority.HIGH.rank,))
        await store.complete(Lease(task.id, task.fence), TRANSCRIPT)
        _promise("completed", id=task.id, number=number)


async def _end(store: SqlTaskStore) -> None:
    for number in count():
        cancelled, _ = await store.create(NewTask(media_prefix=f"cancelled{number}"))
        await store.cancel(cancelled.id)
        _promise("cancelled", id=cancelled.id)
        deleted, _ = await store.create(NewTask(media_prefix=f"deleted{number}"))
        await store.delete(deleted.id)
        _promise("deleted", id=deleted.id)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
