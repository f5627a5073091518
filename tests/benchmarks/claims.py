"""Claims a second, on SQLite and on a private MariaDB: ``python tests/benchmarks/claims.py --workers 1 4``.

Each worker is a process with a store of its own on the same database, as Dispatchers of several clusters are; together
they claim every task once. SQLite syncs as the store sets it up; MariaDB flushes its log once a second.

With ``--deep 50000`` one client has that many tasks queued instead, and ``--clients`` others have five each; one
process claims ``--claims`` times from the whole.
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

from sqlalchemy import Connection, literal, select

from pipeline.domain.tasks.task import NewTask
from pipeline.store.sql_task_store import SqlTaskStore
from pipeline.store.tables import TASKS
from pipeline.system_clock import SystemClock
from tests.support.mariadb import MariaDbServer

LEASE = timedelta(minutes=10)
ROW = "{:<9}{:>8}{:>7}{:>8}{:>11}{:>13}{:>9}{:>9}"


WARM_UP = 5
"""Claims that open connections and fill caches."""

READY: list[Barrier] = []
"""What the workers of one round wait for; each process is handed it as it starts."""


class Share(NamedTuple):
    """The claims of one worker: the tasks, the time of each claim, and its begin and end (seconds since the epoch)."""

    ids: list[int]
    latencies: list[float]
    first: float
    last: float


def open_store(url: str) -> SqlTaskStore:
    return SqlTaskStore(
        url, SystemClock(), busy_timeout_s=15.0, idempotency_ttl_s=86_400.0, ageing_s=600.0, max_losses=3
    )


async def fill(url: str, tasks: int) -> float:
    """Create the tasks; return how many a second."""
    store = open_store(url)
    await store.migrate()
    start = time.perf_counter()
    for number in range(tasks):
        await store.create(NewTask(media_prefix=str(number)))
    rate = tasks / (time.perf_counter() - start)
    await store.close()
    return rate


async def claim_all(url: str, owner: str, batch: int) -> Share:
    """Claim until nothing is left, once every process is ready."""
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


COPIED = [column.name for column in TASKS.columns if column.name != "id"]


async def deepen(url: str, tasks: int, clients: int) -> None:
    """Queue copies of one task: so many of one client, and five of each of the others."""
    store = open_store(url)
    await store.migrate()
    await store.create(NewTask(media_prefix="copied", client="many"))
    here = 1
    while here < tasks:
        await store.database.write(copy, "many", min(here, tasks - here))
        here *= 2
    await store.database.write(copy_for_each, clients)
    await store.close()


def copy_for_each(connection: Connection, clients: int) -> None:
    for number in range(clients):
        copy(connection, f"client {number:04d}", 5)


def copy(connection: Connection, client: str, count: int) -> None:
    """Insert copies of the first tasks, as a client's."""
    values = [literal(client) if name == "client" else TASKS.c[name] for name in COPIED]
    first = select(*values).order_by(TASKS.c.id).limit(count)
    connection.execute(TASKS.insert().from_select(COPIED, first))


async def claim_often(url: str, batch: int, claims: int) -> list[float]:
    """Return the seconds that each claim took, without the first few."""
    store = open_store(url)
    seconds = []
    for _ in range(claims + WARM_UP):
        start = time.perf_counter()
        if not await store.claim("deep", LEASE, batch, (0, 1, 2)):
            raise SystemExit("There was nothing to claim.")
        seconds.append(time.perf_counter() - start)
    await store.close()
    return seconds[WARM_UP:]


def measure_deep(name: str, url: str, batch: int, arguments: argparse.Namespace) -> str:
    asyncio.run(deepen(url, arguments.deep, arguments.clients))
    seconds = asyncio.run(claim_often(url, batch, arguments.claims))
    median_ms, p95_ms = 1000 * statistics.median(seconds), 1000 * statistics.quantiles(seconds, n=20)[-1]
    return ROW.format(name, 1, batch, arguments.deep, "", "", f"{median_ms:.1f}", f"{p95_ms:.1f}")


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
    parser.add_argument("--deep", type=int, default=0, help="tasks that one client has queued")
    parser.add_argument("--clients", type=int, default=0, help="other clients beside it, with five tasks each")
    parser.add_argument("--claims", type=int, default=100, help="claims from a deep queue")
    arguments = parser.parse_args()
    print(ROW.format("database", "workers", "batch", "tasks", "creates/s", "tasks/s", "p50 ms", "p95 ms"))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mariadb = start_mariadb(stack, folder)
        workers_or_one = [1] if arguments.deep else arguments.workers
        for number, (workers, batch) in enumerate(product(workers_or_one, arguments.batch)):
            urls = {"sqlite": f"sqlite+aiosqlite:///{folder / f'{number}.db'}"}
            if mariadb:
                urls["mariadb"] = mariadb.create_database(f"round{number}")
            for name, url in urls.items():
                deep = arguments.deep > 0
                line = (
                    measure_deep(name, url, batch, arguments)
                    if deep
                    else measure(name, url, workers, batch, arguments.tasks)
                )
                print(line, flush=True)


if __name__ == "__main__":
    main()
