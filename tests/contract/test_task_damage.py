"""A row that can't be read fails alone: rubbish in every column of every table, and the service goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import pytest
from sqlalchemy import Column, Table, event, insert, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from deployments.api.response.task_record import encode_record
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.summaries.summary import SummaryOptions
from pipeline.domain.tasks.client import Client, Scope
from pipeline.domain.tasks.task import IdempotencyClaim, Priority, Status, Task
from pipeline.domain.tasks.upload import Upload, UploadPart
from pipeline.errors import IdempotencyConflict, RecordUnreadable, TaskStateConflict, UploadNotFound
from pipeline.ports import Lease, TaskQuery
from pipeline.settings import Settings
from pipeline.store.rows.vocabulary import vocabulary_digest
from pipeline.store.sql_task_store import SqlTaskStore
from pipeline.store.tables import METADATA
from pipeline.store.upload_store import SqlUploadStore
from pipeline.system_clock import SystemClock
from pipeline.testing.fake_splitter import FakeSplitter, make_chunks
from pipeline.testing.fake_transcriber import FakeTranscriber
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_media import MemoryMediaStore
from pipeline.testing.recording_metrics import RecordingMetrics
from pipeline.usecases.dispatch.dispatcher import Dispatcher
from tests.contract.tasks import ALL_RANKS, CRAWLED, ERROR, LEASE, TRANSCRIPT, URL, chunk, new_task, result
from tests.support.builders import blocks
from tests.support.stores import AGEING_S, IDEMPOTENCY_TTL_S, MAX_LOSSES
from tests.support.thoroughness import thorough

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

VALUES_A_COLUMN = len(RUBBISH) if thorough() else 2
"""Values of ``RUBBISH`` that each column is filled with, others in each: columns of one kind have all of them."""

Rows = dict[str, list[dict[str, Any]]]
TABLES = [table for table in METADATA.tables.values() if table.name != "store_identity"]
COLUMNS = [column for table in TABLES for column in table.columns if column.name != "id"]
CLIENT = Client("amsel", frozenset({Scope.WRITE}), max_queued_tasks=1000, max_audio_s=1e6)
KEY = IdempotencyClaim("key", "0" * 64)


STATES = 5
"""Tasks of one set of victims: running, done, about to be summarised, failed, queued."""


class StoreWithTables:
    """A store, and a way to write into its tables past it."""

    def __init__(self, url: str, clock: ManualClock) -> None:
        self.url, self.clock = url, clock
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
        """Run SQL without any constraint; return whether the database accepted it."""
        async with self._engine.connect() as connection:
            try:
                await connection.execute(text(statement), values)
                await connection.commit()
            except (DBAPIError, OverflowError):
                return False
        return True

    async def clear(self) -> None:
        """Delete all rows, also those that belong to no task."""
        for table in METADATA.sorted_tables:
            if table.name != "store_identity":
                await self.write(f"DELETE FROM {table.name}")

    async def rows(self) -> Rows:
        """Return all rows, by table."""
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
async def desk(sql_url: str, clock: ManualClock) -> AsyncIterator[StoreWithTables]:
    opened = StoreWithTables(sql_url, clock)
    await opened.clear()
    yield opened
    await opened.clear()
    await opened.close()


async def make_victims(desk: StoreWithTables) -> Rows:
    """Make tasks in every state, with all that belongs to them, as rows."""
    store = desk.store
    wanted = {"callback_url": URL, "client": "amsel", "file_size_bytes": 1000}
    running, _ = await store.create(new_task("running", **wanted))
    done, _ = await store.create(new_task("done", **wanted))
    summed, _ = await store.create(new_task("summed", summary_options=SummaryOptions(), **wanted))
    failed, _ = await store.create(new_task("failed", **wanted))
    leases = {task.id: Lease(task.id, task.fence) for task in await store.claim("owner", LEASE, 10, ALL_RANKS)}
    await store.save_crawl_record(leases[running.id], CRAWLED)
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
    await store.begin_extraction(CLIENT, "0" * 32, 1000)
    rows = await desk.rows()
    first = running.id
    for number in range(first, first + STATES):
        await store.delete(number)
    await desk.uploads.delete("0" * 32)
    for table in ("taken_audio", "extracted_audio"):
        await desk.write(f"DELETE FROM {table}")
    return _shifted(rows, -first)


def _shifted(rows: Rows, by: int, copy: int = 0) -> Rows:
    """Return the same rows for tasks whose ids are higher by so much; ids start at 0 in between."""
    return {
        table: [_copied(table, row, by, copy, number) for number, row in enumerate(several)]
        for table, several in rows.items()
    }


def _copied(table: str, row: dict[str, Any], by: int, copy: int, number: int) -> dict[str, Any]:
    own: dict[str, dict[str, Any]] = {
        "outbox": {"id": 1 + 10 * copy + number, "message_id": f"msg_{copy}_{number}"},
        "uploads": {"id": f"{copy:032x}"},
        "upload_parts": {"upload_id": f"{copy:032x}"},
        "extracted_audio": {"id": f"{copy:032x}"},
        "clients": {"name": f"victim {copy}"},
        "idempotency_keys": {"key_sha256": f"{copy:064x}"} if copy else {},
    }
    of_task = "id" if table == "tasks" else "task_id"
    moved = {of_task: row[of_task] + by} if row.get(of_task) is not None else {}
    return row | moved | own.get(table, {})


def _of_copy(table: str, copy: int) -> str:
    """Return the condition for the rows of a table that belong to a copy of the victims."""
    if table == "clients":
        return f"name = 'victim {copy}'"
    if table in ("uploads", "upload_parts", "extracted_audio"):
        return f"{'upload_id' if table == 'upload_parts' else 'id'} = '{copy:032x}'"
    column = "id" if table == "tasks" else "task_id"
    return f"{column} BETWEEN {1 + copy * STATES} AND {(copy + 1) * STATES}"


async def allowed(call: Awaitable[Any], *refusals: type[Exception]) -> Any:
    """Return the call's result; ``None`` if it was refused with a reason."""
    try:
        return await call
    except refusals:
        return None


async def claim_everything(store: SqlTaskStore) -> dict[int, Task]:
    claimed: dict[int, Task] = {}
    while tasks := await store.claim("next", LEASE, 100, ALL_RANKS):
        claimed |= {task.id: task for task in tasks}
    return claimed


async def everything_goes_on(desk: StoreWithTables, numbers: range) -> None:
    """Do all that other clients request of the service, beside the damaged rows."""
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
    await store.lease_owners()
    await store.fail_exhausted(MAX_LOSSES)
    await store.fail_unreachable(500)
    turns = await store.claim_summaries("next", LEASE, 100)
    await store.renew_summaries(turns, LEASE)
    await store.claim_callbacks("next", LEASE, 100)
    await allowed(store.create(new_task("again"), KEY), IdempotencyConflict)
    assert (await store.complete(lease, TRANSCRIPT)).status is Status.COMPLETED
    await store.delete(good.id)


async def each_can_be_had_and_dropped(desk: StoreWithTables, numbers: Sequence[int]) -> None:
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


async def housekeeping_goes_on(desk: StoreWithTables) -> None:
    store, clock = desk.store, desk.clock
    for copy in range(VALUES_A_COLUMN):
        await allowed(desk.uploads.get(f"{copy:032x}"), UploadNotFound)
        await allowed(desk.uploads.parts(f"{copy:032x}"), UploadNotFound)
    await desk.uploads.open_uploads("amsel")
    clock.advance(10 * IDEMPOTENCY_TTL_S)
    await store.delete_old_usage()
    await store.prune_idempotency_keys(100)
    await store.prune_callbacks(clock.now(), 100)
    await desk.uploads.expire(100)
    await store.delete_expired_media(clock.now(), 100, tuple(Status))
    await store.delete_unawaited(100)
    assert all(isinstance(prefix, str) for prefix in await store.expire(clock.now(), 100))


def columns_of(table: Table, url: str) -> Sequence[Column[Any]]:
    """Return the columns of a table to damage: all of them, or in a quick run every other one in each database."""
    columns = [column for column in COLUMNS if column.table is table]
    return columns if thorough() else columns[int("mysql" in url) :: 2]


def rubbish_for(column: Column[Any]) -> Sequence[object]:
    """Return the column's own turn through ``RUBBISH``, the same in every run."""
    first = VALUES_A_COLUMN * [each is column for each in COLUMNS].index(True)
    return [RUBBISH[(first + number) % len(RUBBISH)] for number in range(VALUES_A_COLUMN)]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
async def test_rubbish_in_a_column_harms_nothing_else(desk: StoreWithTables, table: Table) -> None:
    for column in columns_of(table, desk.url):
        await check_rubbish_harms_nothing_else(desk, table, column)


async def check_rubbish_harms_nothing_else(desk: StoreWithTables, table: Table, column: Column[Any]) -> None:
    await desk.clear()
    rows, taken = await make_victims(desk), 0
    for copy, value in enumerate(rubbish_for(column)):
        await desk.add(_shifted(rows, 1 + copy * STATES, copy))
        where = _of_copy(table.name, copy) + (f" AND id = {1 + 10 * copy}" if column.unique else "")
        taken += await desk.write(f"UPDATE {table.name} SET {column.name} = :value WHERE {where}", value=value)
    desk.clock.advance(60)
    numbers = range(1, 1 + VALUES_A_COLUMN * STATES)

    try:
        await everything_goes_on(desk, numbers)
        await housekeeping_goes_on(desk)
        remaining = [task.id for task in (await desk.store.query(TaskQuery(limit=500, include_result=False))).tasks]
        await each_can_be_had_and_dropped(desk, [number for number in numbers if number in remaining])
        assert taken or column.primary_key or column.foreign_keys
    except Exception as error:
        error.add_note(f"The damaged column is {table.name}.{column.name}.")
        raise


# --- a dead letter ----------------------------------------------------------------------------------------------------

DAMAGE = {
    "options": "{",
    "created_at": "rubbish!",
    "media_prefix": "../../etc",
    "losses": 2_100_000_000,
    "summary_options": '{"summary_format": 5}',
    "tracks": "{}",
}


async def damaged(desk: StoreWithTables, column: str, value: object, **wanted: Any) -> Task:
    """Create a task and overwrite one of its columns; skip the test where the database refuses the value."""
    task, _ = await desk.store.create(new_task("victim", **wanted))
    if not await desk.write(f"UPDATE tasks SET {column} = :value WHERE id = {task.id}", value=value):
        await desk.store.delete(task.id)
        pytest.skip("This database does not keep such a value.")
    return task


@pytest.mark.parametrize("column", DAMAGE)
async def test_a_damaged_task_is_failed_with_the_reason(
    desk: StoreWithTables, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    if column in ("created_at",) and "mysql" in desk.url:
        pytest.skip("MySQL keeps nothing but times there.")
    task = await damaged(desk, column, DAMAGE[column], callback_url=URL)
    other, _ = await desk.store.create(new_task("other"))

    assert [claimed.id for claimed in await desk.store.claim("me", LEASE, 1, ALL_RANKS)] == [other.id]

    shown = await desk.store.get(task.id)
    assert (shown.status, shown.owner, shown.lease_expires_at) == (Status.FAILED, None, None)
    assert shown.error is not None
    assert shown.error.code == "record_unreadable"
    assert f"tasks.{column} is damaged" in shown.error.message
    [message] = await desk.store.claim_callbacks("me", LEASE, 10)
    assert (message.task_id, message.url) == (task.id, URL)
    for _ in range(3):
        await desk.store.query(TaskQuery())
        await desk.store.get(task.id)
    assert desk.metrics.total("unreadable_records", table="tasks", column=column) == 1
    [line] = [record for record in caplog.records if record.message == "a record can't be read"]
    assert vars(line)["task_id"] == str(task.id)
    assert str(DAMAGE[column]) not in shown.error.message


async def test_a_damaged_task_that_is_retried_fails_again_and_one_that_was_mended_runs(desk: StoreWithTables) -> None:
    task = await damaged(desk, "options", "{", callback_url=URL)
    for _ in range(3):
        assert await desk.store.claim("me", LEASE, 1, ALL_RANKS) == []
        assert (await desk.store.get(task.id)).status is Status.FAILED
        await desk.store.retry(task.id)
    await desk.write("UPDATE tasks SET options = '{}'")
    [claimed] = await desk.store.claim("me", LEASE, 1, ALL_RANKS)
    assert (claimed.id, claimed.options) == (task.id, TranscriptionOptions())


async def test_any_number_of_damaged_tasks_keeps_none_behind_them_waiting(desk: StoreWithTables) -> None:
    for number in range(150):
        await desk.store.create(new_task(f"t{number}", priority=Priority.HIGH))
    await desk.write("UPDATE tasks SET options = 'rubbish!'")
    good, _ = await desk.store.create(new_task("good", priority=Priority.LOW))
    assert [task.id for task in await desk.store.claim("me", LEASE, 1, ALL_RANKS)] == [good.id]


async def test_a_run_whose_row_is_damaged_meanwhile_comes_to_its_end(desk: StoreWithTables) -> None:
    task, _ = await desk.store.create(new_task("a"))
    [claimed] = await desk.store.claim("me", LEASE, 1, ALL_RANKS)
    await desk.write("UPDATE tasks SET options = '{', tracks = '{'")
    lease = Lease(task.id, claimed.fence)
    assert await desk.store.heartbeat([lease], LEASE) == frozenset()
    ended = await desk.store.complete(lease, TRANSCRIPT)
    assert ended.status is Status.COMPLETED
    assert (await desk.store.get(task.id, include_result=True)).result == TRANSCRIPT


@pytest.mark.parametrize("what", ["rank", "available_at", "lease", "summary"])
async def test_a_damaged_task_that_no_claim_finds_is_failed_by_housekeeping(desk: StoreWithTables, what: str) -> None:
    await desk.store.create(new_task("a", summary_options=SummaryOptions()))
    [claimed] = await desk.store.claim("me", LEASE, 1, ALL_RANKS)
    damage = {
        "rank": "status = 'queued', priority_rank = 'rubbish!'",
        "available_at": "status = 'queued', available_at = 'soon!'",
        "lease": "lease_expires_at = NULL",
        "summary": "summary_due_at = 'soon!', lease_expires_at = NULL, stage = 'summarizing'",
    }
    if "mysql" in desk.url and what != "lease":
        pytest.skip("MySQL keeps nothing but numbers and times there.")
    assert await desk.write(f"UPDATE tasks SET {damage[what]}")
    desk.clock.advance(1000)

    assert await desk.store.claim("me", LEASE, 1, ALL_RANKS) == []
    [failed] = await desk.store.fail_unreachable(10)
    assert (failed.id, failed.status) == (claimed.id, Status.FAILED)
    assert await desk.store.fail_unreachable(10) == []


# --- a newer version --------------------------------------------------------------------------------------------------

NEWER = {
    "status": "paused",
    "priority_rank": 7,
    "stage": "diarizing",
    "engine_name": "parakeet",
    "task_type": "diarize",
    "link_kind": "podcast",
    "options": '{"beam_size": 3, "diarize": true}',
    "summary_options": '{"summary_format": "haiku"}',
    "tracks": '[{"index": 0, "loudness": -23.0}]',
}
"""What a version that knows more may have written."""


@pytest.mark.parametrize("column", NEWER)
async def test_what_a_newer_version_wrote_is_left_to_it(desk: StoreWithTables, column: str) -> None:
    task = await damaged(desk, column, NEWER[column], callback_url=URL)
    before = (await desk.rows())["tasks"][0]
    other, _ = await desk.store.create(new_task("other"))

    assert [claimed.id for claimed in await claim_twice(desk)] == [other.id]

    assert await desk.store.fail_exhausted(MAX_LOSSES) == await desk.store.fail_unreachable(10) == []
    assert await desk.store.claim_callbacks("me", LEASE, 10) == []
    after = (await desk.rows())["tasks"][0]
    assert after | {"left_by": None} == before
    shown = {each.id: each for each in (await desk.store.query(TaskQuery())).tasks}[task.id]
    assert shown.error is not None
    assert (shown.error.code, shown.status.finished) == ("record_of_newer_version", False)
    assert (await desk.store.stats()).left_tasks == 1
    assert desk.metrics.total("unreadable_records", table="tasks", column=column) == 0
    assert (await desk.store.cancel(task.id)).status is Status.CANCELLED
    assert (await desk.store.stats()).left_tasks == 0
    assert await desk.store.delete(task.id) == "victim"


async def claim_twice(desk: StoreWithTables) -> list[Task]:
    return [task for _ in range(2) for task in await desk.store.claim("me", LEASE, 10, ALL_RANKS)]


async def test_what_another_version_has_left_is_looked_at(desk: StoreWithTables) -> None:
    task = await damaged(desk, "left_by", "0123456789abcdef")
    assert [claimed.id for claimed in await desk.store.claim("me", LEASE, 10, ALL_RANKS)] == [task.id]


async def test_a_newer_summary_is_left_to_it(desk: StoreWithTables) -> None:
    task, _ = await desk.store.create(new_task("a", summary_options=SummaryOptions()))
    [claimed] = await desk.store.claim("me", LEASE, 1, ALL_RANKS)
    await desk.store.complete(Lease(task.id, claimed.fence), TRANSCRIPT)
    await desk.write("UPDATE tasks SET summary_options = :value", value=NEWER["summary_options"])

    assert await desk.store.claim_summaries("me", LEASE, 10) == []
    assert (await desk.store.get(task.id)).status is Status.PROCESSING

    await desk.write("UPDATE tasks SET summary_options = '{', left_by = NULL")
    assert await desk.store.claim_summaries("me", LEASE, 10) == []
    ended = await desk.store.get(task.id, include_result=True)
    assert (ended.status, ended.result) == (Status.COMPLETED, TRANSCRIPT)
    assert ended.summary.error is not None
    assert ended.summary.error.code == "record_unreadable"


def test_the_vocabulary_is_that_of_the_code() -> None:
    assert vocabulary_digest() == vocabulary_digest()
    assert len(vocabulary_digest()) == 16


# --- what hangs on a task ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["chunks", "parts", "chunk_results"])
async def test_a_task_whose_chunks_are_damaged_begins_again_at_its_recording(desk: StoreWithTables, table: str) -> None:
    column = {"chunks": "spans", "parts": "part_end", "chunk_results": "result"}[table]
    media = MemoryMediaStore()
    await media.write("t/source", blocks(b"sound"))
    task, _ = await desk.store.create(new_task("t", options=TranscriptionOptions(language="en")))
    other, _ = await desk.store.create(new_task("broken"))
    [claimed, _other] = await desk.store.claim("dead", LEASE, 10, ALL_RANKS)
    lease = Lease(task.id, claimed.fence)
    chunks = make_chunks(5)
    await desk.store.add_part(lease, 0, 0, 16_000, chunks)
    await desk.store.save_results(lease, [result(chunks[0].index)])
    await desk.store.expire_leases_of("dead")
    await desk.write(f"UPDATE tasks SET options = '[' WHERE id = {other.id}")
    if not await desk.write(f"UPDATE {table} SET {column} = :value", value="rubbish!"):
        pytest.skip("This database does not keep such a value.")

    clock = SystemClock()
    desk.store._clock = clock  # from here on time passes
    dispatcher = Dispatcher(
        owner="next",
        store=desk.store,
        media=media,
        splitter=FakeSplitter(chunks),
        transcriber=FakeTranscriber(),
        clock=clock,
        settings=Settings(dispatch={"poll_s": 0.01, "heartbeat_s": 0.05, "retry_base_s": 0.001}),
        metrics=desk.metrics,
    )
    await dispatcher.prepare()
    running = asyncio.create_task(dispatcher.run())
    async with asyncio.timeout(30):
        while not (ended := await desk.store.get(task.id, include_result=True)).status.finished:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert (ended.status, ended.error) == (Status.COMPLETED, None)
    assert ended.result is not None
    assert len(ended.result.segments) == len(chunks)
    assert (await desk.store.get(other.id)).status is Status.FAILED
    assert dispatcher.failure_messages == ()
