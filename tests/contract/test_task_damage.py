"""A row that can't be read fails alone: rubbish in every column of every table, and the service goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import pytest
from sqlalchemy import Column, Table, event, insert, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from deployments.api.schemas import encode_record
from pipeline.domain.access import Client, Scope
from pipeline.domain.summary import SummaryOptions
from pipeline.domain.task import IdempotencyClaim, Status, Task
from pipeline.domain.upload import Upload, UploadPart
from pipeline.errors import IdempotencyConflict, RecordUnreadable, TaskStateConflict, UploadNotFound
from pipeline.ports import Lease, TaskQuery
from pipeline.store.store import SqlTaskStore
from pipeline.store.tables import METADATA
from pipeline.store.uploads import SqlUploadStore
from pipeline.testing.clock import ManualClock
from pipeline.testing.metrics import RecordingMetrics
from tests.contract.conftest import AGEING_S, IDEMPOTENCY_TTL_S, MAX_LOSSES
from tests.contract.tasks import ALL_RANKS, CRAWLED, ERROR, LEASE, TRANSCRIPT, URL, chunk, new_task, result

RUBBISH = (
    "rubbish!",
    "",
    "{",
    "[]",
    '{"beam_size": "many"}',
    '"\\ud800"',
    "[" * 1000,
    "[[5, 1]]",
    b"\xff\xfe",
    -1,
    2**63 - 1,
    1.5,
    9e999,
    None,
    "9999-99-99 00:00:00",
)
"""What people, crashes and bad disks leave in a column; each database takes what it takes."""

Rows = dict[str, list[dict[str, Any]]]
COLUMNS = [
    pytest.param(table, column, id=f"{table.name}.{column.name}")
    for table in METADATA.tables.values()
    for column in table.columns
    if column.name != "id" and table.name != "store_identity"
]
CLIENT = Client("amsel", frozenset({Scope.WRITE}), max_queued_tasks=1000, max_audio_s=1e6)
KEY = IdempotencyClaim("key", "0" * 64)


STATES = 5
"""Tasks of one set of victims: running, done, about to be summarised, failed, queued."""


class Desk:
    """A store, and a way to write into its tables past it."""

    def __init__(self, url: str, clock: ManualClock) -> None:
        self.clock = clock
        self.metrics = RecordingMetrics()
        self.store = SqlTaskStore(
            url,
            clock,
            busy_timeout_s=10.0,
            idempotency_ttl_s=IDEMPOTENCY_TTL_S,
            ageing_s=AGEING_S,
            max_losses=MAX_LOSSES,
            metrics=self.metrics,
        )
        self.uploads = SqlUploadStore(self.store.database, clock, self.store.report.note)
        self._engine = _careless_engine(url)

    async def write(self, statement: str, **values: object) -> bool:
        """Runs SQL without any constraint; says whether the database took it."""
        async with self._engine.connect() as connection:
            try:
                await connection.execute(text(statement), values)
                await connection.commit()
            except (DBAPIError, OverflowError):
                return False
        return True

    async def clear(self) -> None:
        """Forgets everything, also what hangs on nothing."""
        for table in METADATA.sorted_tables:
            if table.name != "store_identity":
                await self.write(f"DELETE FROM {table.name}")

    async def rows(self) -> Rows:
        """All that is stored, by table."""
        async with self._engine.connect() as connection:
            return {
                table.name: [dict(row) for row in (await connection.execute(select(table))).mappings()]
                for table in METADATA.sorted_tables
                if table.name != "store_identity"
            }

    async def add(self, rows: Rows) -> None:
        async with self._engine.begin() as connection:
            for table in METADATA.sorted_tables:
                if rows.get(table.name):
                    await connection.execute(insert(table), rows[table.name])

    async def close(self) -> None:
        await self.store.close()
        await self._engine.dispose()


def _careless_engine(url: str) -> AsyncEngine:
    engine = create_async_engine(url)
    sqlite = make_url(url).get_backend_name() == "sqlite"
    statements = ("PRAGMA foreign_keys = OFF",) if sqlite else ("SET foreign_key_checks = 0", "SET sql_mode = ''")

    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()

    event.listen(engine.sync_engine, "connect", prepare)
    return engine


@pytest.fixture
async def desk(sql_url: str, clock: ManualClock) -> AsyncIterator[Desk]:
    opened = Desk(sql_url, clock)
    await opened.clear()
    yield opened
    await opened.clear()
    await opened.close()


async def make_victims(desk: Desk) -> Rows:
    """Tasks in every state, with all that hangs on them, as rows."""
    store = desk.store
    wanted = {"callback_url": URL, "client": "amsel", "file_size_bytes": 1000}
    running, _ = await store.create(new_task("running", **wanted))
    done, _ = await store.create(new_task("done", **wanted))
    summed, _ = await store.create(new_task("summed", summary_options=SummaryOptions(), **wanted))
    failed, _ = await store.create(new_task("failed", **wanted))
    leases = {task.id: Lease(task.id, task.fence) for task in await store.claim("owner", LEASE, 10, ALL_RANKS)}
    await store.save_crawl(leases[running.id], CRAWLED)
    await store.add_part(leases[running.id], 0, 0, 16_000, [chunk(0), chunk(1)])
    await store.save_results(leases[running.id], [result(0)])
    await store.update(leases[running.id], file_duration_s=20.0, split_done=True)
    await store.complete(leases[done.id], TRANSCRIPT)
    await store.complete(leases[summed.id], TRANSCRIPT)
    await store.fail(leases[failed.id], ERROR)
    await store.create(new_task("queued", **wanted), KEY)
    soon = desk.clock.now() + 9 * LEASE
    await desk.uploads.create(Upload(id="0" * 32, client="amsel", size_bytes=10, expires_at=soon))
    await desk.uploads.append("0" * 32, [UploadPart(0, 5, "f/0")], soon)
    rows = await desk.rows()
    first = running.id
    for number in range(first, first + STATES):
        await store.delete(number)
    await desk.uploads.delete("0" * 32)
    await desk.write("DELETE FROM taken_audio")
    return _shifted(rows, -first)


def _shifted(rows: Rows, by: int, copy: int = 0) -> Rows:
    """The same rows for tasks whose ids are higher by so much; ids start at 0 in between."""
    return {
        table: [_copied(table, row, by, copy, number) for number, row in enumerate(several)]
        for table, several in rows.items()
    }


def _copied(table: str, row: dict[str, Any], by: int, copy: int, number: int) -> dict[str, Any]:
    own = {
        "outbox": {"id": 1 + 10 * copy + number, "message_id": f"msg_{copy}_{number}"},
        "uploads": {"id": f"{copy:032x}"},
        "upload_parts": {"upload_id": f"{copy:032x}"},
        "idempotency_keys": {"key_sha256": f"{copy:064x}"} if copy else {},
    }
    of_task = "id" if table == "tasks" else "task_id"
    moved = {of_task: row[of_task] + by} if row.get(of_task) is not None else {}
    return row | moved | own.get(table, {})


def _of_copy(table: str, copy: int) -> str:
    """Which rows of a table belong to a copy of the victims."""
    if table in ("uploads", "upload_parts"):
        return f"{'id' if table == 'uploads' else 'upload_id'} = '{copy:032x}'"
    column = "id" if table == "tasks" else "task_id"
    return f"{column} BETWEEN {1 + copy * STATES} AND {(copy + 1) * STATES}"


async def allowed(call: Awaitable[Any], *refusals: type[Exception]) -> Any:
    """The call's result; ``None`` if it was refused in a way that says why."""
    try:
        return await call
    except refusals:
        return None


async def claim_everything(store: SqlTaskStore) -> dict[int, Task]:
    claimed: dict[int, Task] = {}
    while tasks := await store.claim("next", LEASE, 100, ALL_RANKS):
        claimed |= {task.id: task for task in tasks}
    return claimed


async def everything_goes_on(desk: Desk, numbers: range) -> None:
    """All that others ask of the service, in the presence of what was damaged."""
    store = desk.store
    good, _ = await store.create(new_task("good", client="amsel"), client=CLIENT)
    claimed = await claim_everything(store)
    assert all(task.defect is None for task in claimed.values())
    lease = Lease(good.id, claimed[good.id].fence)
    assert await store.heartbeat([lease], LEASE) == frozenset()

    for include_result in (False, True):
        page = await store.query(TaskQuery(include_result=include_result, limit=500))
        assert page.total_count == len(page.tasks) == len(numbers) + 1
        assert good.id in {task.id for task in page.tasks}
    for task in page.tasks:
        encode_record(task)
    assert 0.0 <= (await store.stats()).pending_audio_s < 1e9
    await store.client_load("amsel")
    await store.owners()
    await store.bury(MAX_LOSSES)
    await store.fail_unreachable(500)
    turns = await store.due_summaries("next", LEASE, 100)
    await store.renew_summaries(turns, LEASE)
    await store.due_callbacks("next", LEASE, 100)
    await allowed(store.create(new_task("again"), KEY), IdempotencyConflict)
    assert (await store.complete(lease, TRANSCRIPT)).status is Status.COMPLETED
    await store.delete(good.id)


async def each_can_be_had_and_dropped(desk: Desk, numbers: Sequence[int]) -> None:
    store = desk.store
    for number in numbers:
        shown = await store.get(number, include_result=True)
        untold = shown.status is Status.CANCELLED or (shown.status.finished and shown.defect and shown.defect.newer)
        assert shown.defect is None or shown.error is not None or untold
        encode_record(shown)
        if (number - 1) % STATES == 0:
            await allowed(store.chunks(number), RecordUnreadable)
            await store.results(number, 0)
            await allowed(store.crawl_record(number), RecordUnreadable)
        await allowed(store.cancel(number), TaskStateConflict)
        if (number - 1) % STATES in (0, 3):
            await allowed(store.retry(number), TaskStateConflict)
        await store.delete(number)


async def housekeeping_goes_on(desk: Desk) -> None:
    store, clock = desk.store, desk.clock
    for copy in range(len(RUBBISH)):
        await allowed(desk.uploads.get(f"{copy:032x}"), UploadNotFound)
        await allowed(desk.uploads.parts(f"{copy:032x}"), UploadNotFound)
    await desk.uploads.open_uploads("amsel")
    clock.advance(10 * IDEMPOTENCY_TTL_S)
    await store.forget_taken_audio()
    await store.prune_keys(100)
    await store.prune_callbacks(clock.now(), 100)
    await desk.uploads.expire(100)
    await store.expire_media(clock.now(), 100, tuple(Status))
    await store.expire_unawaited(100)
    assert all(isinstance(prefix, str) for prefix in await store.expire(clock.now(), 100))


@pytest.mark.parametrize(("table", "column"), COLUMNS)
async def test_rubbish_in_a_column_harms_nothing_else(desk: Desk, table: Table, column: Column[Any]) -> None:
    rows, taken = await make_victims(desk), 0
    for copy, value in enumerate(RUBBISH):
        await desk.add(_shifted(rows, 1 + copy * STATES, copy))
        where = _of_copy(table.name, copy) + (f" AND id = {1 + 10 * copy}" if column.unique else "")
        taken += await desk.write(f"UPDATE {table.name} SET {column.name} = :value WHERE {where}", value=value)
    desk.clock.advance(60)
    numbers = range(1, 1 + len(RUBBISH) * STATES)

    await everything_goes_on(desk, numbers)
    await housekeeping_goes_on(desk)
    remaining = [task.id for task in (await desk.store.query(TaskQuery(limit=500, include_result=False))).tasks]
    await each_can_be_had_and_dropped(desk, [number for number in numbers if number in remaining])

    assert taken or column.primary_key or column.foreign_keys
