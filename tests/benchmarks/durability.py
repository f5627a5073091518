"""The cost of losing nothing in a power cut: ``python -m tests.benchmarks.durability``.

Tasks go through the store from their creation to their completion, some at a time, as they do in the service; each
commit waits for the disk always, never, or where it is a promise. Then recordings are written to the media store with
and without syncing. The folder should be on the disk in question: a file system in memory syncs for nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

from pipeline.domain.audio.spans import Chunk, Span
from pipeline.domain.decoding.transcript import ChunkResult, Segment, Transcript, TranscriptInfo
from pipeline.domain.durability import Durability
from pipeline.domain.tasks.task import NewTask
from pipeline.media.media_store import FsspecMediaStore
from pipeline.ports import Lease
from pipeline.store import sql_task_store as sql
from pipeline.store.connection.database_access import Database
from pipeline.store.connection.dialects import parse_url
from pipeline.system_clock import SystemClock
from tests.benchmarks.reports import report
from tests.support.tables import percentile

LEASE = timedelta(minutes=10)
CHUNK = Chunk(0, 0, 0, (Span(0, 160_000),))
SEGMENT = Segment(1, 0, 0.0, 1.0, " hello", (1, 2), 0.0, -0.1, 1.0, 0.0, None)
RESULT = ChunkResult(0, 10.0, (SEGMENT,), "en", None, 1)
TRANSCRIPT = Transcript("hello", (SEGMENT,), TranscriptInfo("en", 1.0, 10.0, 10.0, None, {}, {}))

MODES: dict[str, tuple[Durability, bool]] = {
    "normal": (Durability.NORMAL, True),
    "full for promises (the default)": (Durability.FULL, True),
    "full everywhere": (Durability.FULL, False),
}


async def live(store: sql.SqlTaskStore, number: int, creating: list[float]) -> None:
    """Take one task of 10 s from its creation to its completion."""
    began = time.perf_counter()
    await store.create(NewTask(media_prefix=f"{number}", media_key=f"{number}/source"))
    creating.append(time.perf_counter() - began)
    [task] = await store.claim("me", LEASE, 1, (0, 1, 2))
    lease = Lease(task.id, task.fence)
    await store.add_part(lease, 0, 0, 160_000, [CHUNK])
    await store.update(lease, split_done=True, file_duration_s=10.0)
    await store.save_results(lease, [RESULT])
    await store.complete(lease, TRANSCRIPT)


async def tasks_per_s(file: Path, mode: str, tasks: int, at_once: int) -> tuple[float, float]:
    durability, some_recomputable = MODES[mode]
    url = f"sqlite+aiosqlite:///{file}"
    store = sql.SqlTaskStore(
        url,
        SystemClock(),
        busy_timeout_s=15.0,
        idempotency_ttl_s=86_400.0,
        ageing_s=600.0,
        max_losses=3,
        durability=durability,
    )
    if not some_recomputable:
        store._database = Database(parse_url(url), 15.0, durability)  # no setting does this
    await store.migrate()
    creating: list[float] = []
    slots = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with slots:
            await live(store, number, creating)

    began = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(tasks)))
    rate = tasks / (time.perf_counter() - began)
    await store.close()
    return rate, statistics.median(creating) * 1000


@contextmanager
def unsynced() -> Iterator[None]:
    """Let nothing in this process sync, as the media store did before."""
    with patch.object(os, "fsync", lambda _descriptor: None):
        yield


async def write_ms(folder: Path, size_bytes: int, count: int, at_once: int) -> tuple[float, float, float]:
    """Median and 95th percentile of writing one key, and MiB/s of all."""
    media = FsspecMediaStore(folder.as_uri())
    block = os.urandom(min(size_bytes, 1024 * 1024))
    slots, times = asyncio.Semaphore(at_once), list[float]()

    async def data() -> AsyncIterator[bytes]:
        for start in range(0, size_bytes, len(block)):
            yield block[: size_bytes - start]

    async def one(number: int) -> None:
        async with slots:
            began = time.perf_counter()
            await media.write(f"{number}/source", data())
            times.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(count)))
    wall_s = time.perf_counter() - began
    return percentile(times, 50), percentile(times, 95), size_bytes * count / wall_s / 2**20


async def measure(folder: Path, tasks: int, rounds: int) -> None:
    rows: list[list[str]] = []
    for at_once in (1, 16):
        for mode in MODES:
            figures = [
                await tasks_per_s(folder / f"{mode[:6]}-{at_once}-{turn}-{len(rows)}.db", mode, tasks, at_once)
                for turn in range(rounds)
            ]
            rate, create_ms = (statistics.median(values) for values in zip(*figures, strict=True))
            rows.append([mode, str(at_once), f"{rate:.0f}", f"{create_ms:.1f} ms"])
    report(f"{tasks} tasks, median of {rounds}", ["durability", "at once", "tasks/s", "a create, p50"], rows)
    rows = []
    for size_bytes, count in ((100_000, 200), (8 * 2**20, 30), (256 * 2**20, 3)):
        for at_once in (1, 8):
            os.sync()
            synced = await write_ms(folder / f"synced-{size_bytes}-{at_once}", size_bytes, count, at_once)
            with unsynced():
                before = await write_ms(folder / f"unsynced-{size_bytes}-{at_once}", size_bytes, count, at_once)
            for name, (p50, p95, rate) in {"unsynced": before, "synced": synced}.items():
                size = f"{size_bytes / 2**20:.1f} MiB"
                rows.append([size, str(at_once), name, f"{p50:.1f} / {p95:.1f} ms", f"{rate:.0f} MiB/s"])
    report("Keys written to a folder", ["size", "at once", "files", "a write, p50 / p95", "all"], rows)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tasks", type=int, default=300)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path, default=None, help="where to write; the system's temporary folder")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        asyncio.run(measure(Path(folder), chosen.tasks, chosen.rounds))


if __name__ == "__main__":
    main()
