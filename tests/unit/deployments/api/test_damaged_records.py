"""Tasks whose rows can't be read: clients see the task with the reason, and all other tasks as usual."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from pipeline.domain.tasks.task import NewTask
from pipeline.ports import Lease
from pipeline.store.sql_task_store import SqlTaskStore
from tests.contract.tasks import CRAWLED
from tests.unit.deployments.api.world import TRANSCRIPT, World, client_of, detail

ALL = {"status": None, "priority": None, "engine_name": None, "has_result": None, "has_error": None}
PAGE = "/api/whisper/tasks/query"


class Tables:
    """The service over a database file that tests can write to directly."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "tasks.db"
        self.world = World()
        url = f"sqlite+aiosqlite:///{self.file}"
        self.store = SqlTaskStore(
            url, self.world.clock, busy_timeout_s=10.0, idempotency_ttl_s=60.0, ageing_s=600.0, max_losses=3
        )
        self.world.store = self.store  # type: ignore[assignment]

    async def task(self) -> int:
        task, _ = await self.store.create(NewTask(media_prefix="aa", media_key="aa/source"))
        return task.id

    async def completed(self) -> int:
        task_id = await self.task()
        [task] = await self.store.claim("me", timedelta(seconds=30), 1, (0, 1, 2))
        await self.store.save_crawl_record(Lease(task.id, task.fence), CRAWLED)
        await self.store.complete(Lease(task.id, task.fence), TRANSCRIPT)
        return task_id

    def damage(self, statement: str) -> None:
        with closing(sqlite3.connect(self.file)) as connection:
            connection.execute(statement)
            connection.commit()


@pytest.fixture
async def tables(tmp_path: Path) -> AsyncIterator[Tables]:
    opened = Tables(tmp_path)
    await opened.store.migrate()
    yield opened
    await opened.store.close()


@pytest.fixture
async def client(tables: Tables) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(tables.world.api()) as opened:
        yield opened


async def test_a_damaged_task_is_shown_with_the_reason_among_the_others(
    client: httpx.AsyncClient, tables: Tables
) -> None:
    good, bad = await tables.completed(), await tables.task()
    tables.damage(f"UPDATE tasks SET options = '[' WHERE id = {bad}")

    page = (await client.post(PAGE, json=ALL)).json()["data"]
    assert page["total_count"] == 2
    shown = {task["id"]: task for task in page["tasks"]}
    assert shown[good]["result"]["text"] == TRANSCRIPT.text
    assert (shown[bad]["status"], shown[bad]["error"]["code"]) == ("failed", "record_unreadable")
    assert "tasks.options" in shown[bad]["error_message"]
    assert shown[bad]["file_path"] == "aa/source"

    answer = await client.get("/api/whisper/tasks/result", params={"task_id": bad})
    assert "tasks.options is damaged" in detail(answer, 500, "record_unreadable")["message"]
    assert (await client.post("/api/whisper/tasks/cancel", params={"task_id": bad})).status_code == 200
    assert (await client.delete("/api/whisper/tasks/delete", params={"task_id": bad})).status_code == 200
    assert (await client.post(PAGE, json=ALL)).json()["data"]["total_count"] == 1


async def test_a_task_whose_folder_is_damaged_can_be_deleted(client: httpx.AsyncClient, tables: Tables) -> None:
    bad = await tables.task()
    tables.damage("UPDATE tasks SET media_prefix = '../..'")
    assert (await client.delete("/api/whisper/tasks/delete", params={"task_id": bad})).status_code == 200
    detail(await client.get("/api/whisper/tasks/result", params={"task_id": bad}), 404, "task_not_found")


async def test_a_task_of_a_newer_version_is_shown_as_it_is(client: httpx.AsyncClient, tables: Tables) -> None:
    task_id = await tables.task()
    tables.damage("UPDATE tasks SET status = 'paused'")
    answer = await client.get("/api/whisper/tasks/result", params={"task_id": task_id})
    assert answer.status_code == 202
    shown = answer.json()["data"]
    assert (shown["status"], shown["error"]["code"]) == ("processing", "record_of_newer_version")
    cancelled = await client.post("/api/whisper/tasks/cancel", params={"task_id": task_id})
    assert cancelled.json()["data"]["status"] == "cancelled"


async def test_a_damaged_record_of_a_link_has_its_own_error(client: httpx.AsyncClient, tables: Tables) -> None:
    task_id = await tables.completed()
    tables.damage("UPDATE crawl_records SET record = '{'")
    answer = await client.get("/api/crawl/records", params={"task_id": task_id})
    assert "crawl_records.record" in detail(answer, 500, "record_unreadable")["message"]
    assert (await client.get("/api/whisper/tasks/result", params={"task_id": task_id})).status_code == 200


async def test_a_lost_database_is_told_in_a_sentence(client: httpx.AsyncClient, tables: Tables) -> None:
    await tables.task()
    tables.file.unlink()
    for answer in (
        await client.get("/api/health/ready"),
        await client.post(PAGE, json=ALL),
        await client.get("/api/whisper/tasks/result", params={"task_id": 1}),
    ):
        assert "was removed" in detail(answer, 503, "database_unavailable")["message"]
        assert answer.headers["retry-after"]
