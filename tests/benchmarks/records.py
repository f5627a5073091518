"""Queries, claims and statistics over a long table: ``python tests/benchmarks/records.py --tasks 50000``.

SQLite and a private MariaDB are filled with tasks past the store, in bulk. Printed are the median and the 95th
percentile of each call in milliseconds, after one call that is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script, from anywhere

from sqlalchemy import Connection, insert, text

from deployments.api.response.task_filter import TaskFilter
from pipeline.domain.tasks.client import Client, Scope
from pipeline.domain.tasks.task import NewTask, Priority, Status
from pipeline.ports import TaskQuery
from pipeline.store.rows import task_codec, transcript_codec
from pipeline.store.sql_task_store import SqlTaskStore
from pipeline.store.tables import TASKS, TRANSCRIPTS
from pipeline.system_clock import SystemClock
from tests.contract.tasks import TRANSCRIPT
from tests.support.mariadb import MariaDbServer

LEASE = timedelta(minutes=10)
BLOCK = 1000
LANGUAGES = ("en", "de", "zh", "fr")
CLIENT = Client("client-1", frozenset({Scope.WRITE}), max_queued_tasks=10**9)
ROW = "{:<9}{:<9}{:<42}{:>9}{:>9}"


def open_store(url: str) -> SqlTaskStore:
    return SqlTaskStore(
        url, SystemClock(), busy_timeout_s=15.0, idempotency_ttl_s=86_400.0, ageing_s=600.0, max_losses=3
    )


def history(number: int, tasks: int, now: datetime) -> dict[str, Any]:
    """Make a row of a table as it grows: nine of ten completed, some failed and cancelled, the last percent waits."""
    created_at = now - timedelta(seconds=10.0 * (tasks - number))
    row = waiting(number, created_at, client=f"client-{number % 20}")
    if number >= tasks - tasks // 100:
        return row
    status = Status.FAILED if number % 13 == 0 else Status.CANCELLED if number % 29 == 0 else Status.COMPLETED
    error = {"error_code": "source_timeout", "error_message": "It took too long."} if status is Status.FAILED else {}
    finished = {"finished_at": created_at + LEASE, "file_duration_s": 60.0, "language": LANGUAGES[number % 4]}
    return row | finished | error | {"status": status.value, "split_done": True, "platform": "tiktok"}


def waiting(number: int, created_at: datetime, client: str = "client-1") -> dict[str, Any]:
    """Make the row of a task that waits."""
    new = NewTask(
        media_prefix=f"{number:032x}",
        media_key=f"{number:032x}/source",
        file_size_bytes=1_000_000,
        priority=list(Priority)[number % 3],
        client=client,
    )
    return task_codec.new_task_row(new, created_at) | {"id": number + 1}


async def fill(store: SqlTaskStore, rows: Callable[[int], dict[str, Any]], tasks: int) -> None:
    transcript = transcript_codec.transcript_to_json(TRANSCRIPT)

    def write(connection: Connection, first: int) -> None:
        block = [rows(number) for number in range(first, min(tasks, first + BLOCK))]
        for row in block:
            for column in ("error_code", "error_message", "finished_at", "file_duration_s"):
                row.setdefault(column, None)
        connection.execute(insert(TASKS), block)
        done = [{"task_id": row["id"], "transcript": transcript} for row in block if row["status"] == "completed"]
        if done:
            connection.execute(insert(TRANSCRIPTS), done)

    await store.migrate()
    for first in range(0, tasks, BLOCK):
        await store.database.write(write, first)


def queries(tasks: int) -> dict[str, TaskQuery]:
    """Return every filter of the HTTP interface, and pages at both ends."""
    default = TaskFilter().as_query()
    lean, everything = replace(default, include_result=False), TaskQuery(include_result=False)
    now = datetime.now(UTC)
    return {
        "{}": default,
        "{} without results": lean,
        "{} limit 500 without results": replace(lean, limit=500),
        "{} newest first": replace(lean, descending=True),
        "no condition": everything,
        "no condition, last page": replace(everything, offset=tasks - 20),
        "{} deep page": replace(lean, offset=tasks // 4),
        "language": replace(lean, language="de"),
        "language alone": replace(everything, language="de"),
        "language nobody spoke": replace(everything, language="xh"),
        "has_error": replace(everything, has_error=True),
        "has_error false": replace(everything, has_error=False),
        "has_error, last page": replace(everything, has_error=True, offset=tasks // 13 - 50),
        "has_result": replace(everything, has_result=True),
        "has_result false": replace(everything, has_result=False),
        "status failed": replace(everything, status=Status.FAILED),
        "status queued": replace(everything, status=Status.QUEUED),
        "priority": replace(everything, priority=Priority.LOW),
        "created_after": replace(lean, created_after=now - timedelta(hours=5)),
        "created_before": replace(lean, created_before=now - timedelta(hours=5)),
        "engine_name": replace(everything, engine_name="faster_whisper"),
        "engine_name nobody runs": replace(everything, engine_name="openai_whisper"),
        "task_type": replace(everything, task_type="translate"),
        "platform": replace(everything, platform="tiktok"),
        "platform nobody knows": replace(everything, platform="vimeo"),
        "client": replace(lean, client="client-1"),
        "client alone, last page": replace(everything, client="client-1", offset=tasks // 20 - 20),
        "client nobody knows": replace(lean, client="nobody"),
    }


async def measure(call: Callable[[], Awaitable[object]], rounds: int) -> tuple[float, float]:
    """Median and 95th percentile of the call's time, in milliseconds."""
    await call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        await call()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times), statistics.quantiles(times, n=20)[-1]


async def calls(
    store: SqlTaskStore, table: str, tasks: int
) -> AsyncIterator[tuple[str, Callable[[], Awaitable[object]]]]:
    if table == "history":
        for name, query in queries(tasks).items():
            yield f"query {name}", partial(store.query, query)
    else:
        yield "query status queued", lambda: store.query(TaskQuery(status=Status.QUEUED, include_result=False))
    yield "stats", store.stats
    yield "create", lambda: store.create(NewTask(media_prefix="new", client="client-1"), client=CLIENT)
    yield "client_load", lambda: store.client_load("client-1")
    yield "heartbeat of none, bury", lambda: store.fail_exhausted(3)
    yield "fail_unreachable", lambda: store.fail_unreachable(200)
    yield "claim 1", lambda: store.claim("me", LEASE, 1, (0, 1, 2))
    yield "claim 16", lambda: store.claim("me", LEASE, 16, (0, 1, 2))


async def run(url: str, database: str, table: str, tasks: int, rounds: int, only: str) -> None:
    store, now = open_store(url), datetime.now(UTC)
    start = time.perf_counter()
    makers: dict[str, Callable[[int], dict[str, Any]]] = {
        "history": lambda number: history(number, tasks, now),
        "queued": lambda number: waiting(number, now - timedelta(seconds=tasks - number)),
    }
    await fill(store, makers[table], tasks)
    if database == "mariadb":
        await store.database.write(_analyze)
    print(f"# {database} {table}: {tasks} tasks in {time.perf_counter() - start:.0f} s", flush=True)
    async for name, call in calls(store, table, tasks):
        if only in name:
            median, p95 = await measure(call, rounds)
            print(ROW.format(database, table, name, f"{median:.1f}", f"{p95:.1f}"), flush=True)
    await store.close()


def _analyze(connection: Connection) -> None:
    connection.execute(text("ANALYZE TABLE tasks"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "mariadb"])
    parser.add_argument("--tables", nargs="+", default=["history", "queued"], help="history: most tasks have finished")
    parser.add_argument("--only", default="", help="calls whose name has this in it")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(MariaDbServer(folder)) if "mariadb" in arguments.databases else None
        print(ROW.format("database", "table", "call", "p50 ms", "p95 ms"))
        for database in arguments.databases:
            for table in arguments.tables:
                sqlite_url = f"sqlite+aiosqlite:///{folder}/{table}/tasks.db"
                url = server.create_database(table) if server and database == "mariadb" else sqlite_url
                asyncio.run(run(url, database, table, arguments.tasks, arguments.rounds, arguments.only))


if __name__ == "__main__":
    main()
