"""Claims a second, on SQLite and on a private MariaDB: ``python tests/benchmarks/claims.py --workers 1 4``.

Each worker is a process with a store of its own on the same database, as Dispatchers of several clusters are; together
they claim every task once. SQLite syncs as the store sets it up; MariaDB flushes its log once a second.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import timedelta
from itertools import product
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script, from anywhere

from pipeline.clock import SystemClock
from pipeline.domain.task import NewTask
from pipeline.store.store import SqlTaskStore
from tests.mariadb import MariaDbServer

LEASE = timedelta(minutes=10)
ROW = "{:<9}{:>8}{:>7}{:>8}{:>11}{:>13}{:>9}{:>9}"


READY: list[Barrier] = []
"""What the workers of one round wait for; each process is handed it as it starts."""


class Share(NamedTuple):
    """What one worker claimed, how long each claim took, and when it began and ended (seconds since the epoch)."""

    ids: list[int]
    latencies: list[float]
    first: float
    last: float


def open_store(url: str) -> SqlTaskStore:
    return SqlTaskStore(
        url, SystemClock(), busy_timeout_s=15.0, idempotency_ttl_s=86_400.0, ageing_s=600.0, max_losses=3
    )


async def fill(url: str, tasks: int) -> float:
    """Creates the tasks; returns how many a second."""
    store = open_store(url)
    await store.migrate()
    start = time.perf_counter()
    for number in range(tasks):
        await store.create(NewTask(media_prefix=str(number)))
    rate = tasks / (time.perf_counter() - start)
    await store.close()
    return rate


async def claim_all(url: str, owner: str, batch: int) -> Share:
    """Claims until nothing is left, once every process is ready to."""
    store = open_store(url)
    await store.ping()
    READY[0].wait()
    ids: list[int] = []
    latencies: list[float] = []
    first = last = time.time()
    while True:
        start = time.perf_counter()
        claimed = await store.claim(owner, LEASE, batch, (0, 1, 2))
        if not claimed:
            break
        latencies.append(time.perf_counter() - start)
        ids += [task.id for task in claimed]
        last = time.time()
    await store.close()
    return Share(ids, latencies, first, last)


def join(ready: Barrier) -> None:
    READY.append(ready)


def work(arguments: tuple[str, str, int]) -> Share:
    return asyncio.run(claim_all(*arguments))


def measure(name: str, url: str, workers: int, batch: int, tasks: int) -> str:
    created_per_s = asyncio.run(fill(url, tasks))
    processes = multiprocessing.get_context("spawn")
    with processes.Pool(workers, join, (processes.Barrier(workers),)) as pool:
        shares = pool.map(work, [(url, f"worker {number}", batch) for number in range(workers)], chunksize=1)
    ids = [task_id for share in shares for task_id in share.ids]
    if len(ids) != tasks or len(set(ids)) != tasks:
        raise SystemExit(f"{name}: {len(ids)} claims of {len(set(ids))} tasks, expected {tasks} of {tasks}")
    wall_s = max(share.last for share in shares) - min(share.first for share in shares)
    milliseconds = [1000 * latency for share in shares for latency in share.latencies]
    p95 = statistics.quantiles(milliseconds, n=20)[-1]
    return ROW.format(
        name,
        workers,
        batch,
        tasks,
        f"{created_per_s:.0f}",
        f"{tasks / wall_s:.0f}",
        f"{statistics.median(milliseconds):.1f}",
        f"{p95:.1f}",
    )


def start_mariadb(stack: ExitStack, folder: Path) -> MariaDbServer | None:
    try:
        return stack.enter_context(MariaDbServer(folder))
    except FileNotFoundError as missing:
        print(missing)
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4], help="processes that claim at the same time")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], help="tasks asked for in one claim")
    parser.add_argument("--tasks", type=int, default=1000, help="tasks in the queue")
    arguments = parser.parse_args()
    print(ROW.format("database", "workers", "batch", "tasks", "creates/s", "tasks/s", "p50 ms", "p95 ms"))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mariadb = start_mariadb(stack, folder)
        for number, (workers, batch) in enumerate(product(arguments.workers, arguments.batch)):
            urls = {"sqlite": f"sqlite+aiosqlite:///{folder / f'{number}.db'}"}
            if mariadb:
                urls["mariadb"] = mariadb.create_database(f"round{number}")
            for name, url in urls.items():
                print(measure(name, url, workers, batch, arguments.tasks), flush=True)


if __name__ == "__main__":
    main()
