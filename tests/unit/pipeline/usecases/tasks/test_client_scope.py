"""The task records of one client, for which the tasks of others do not exist."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.audio.spans import Chunk, Span
from pipeline.domain.tasks.client import Client, Scope
from pipeline.domain.tasks.task import NewTask, Status
from pipeline.errors import QuotaExceeded, TaskNotFound
from pipeline.ports import Lease, StoredChunks, TaskQuery, TaskRecords
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.usecases.tasks.client_scope import ClientScopedTasks

ANN = Client("ann", frozenset({Scope.READ, Scope.WRITE}), max_queued_tasks=2)
BOB = Client("bob", frozenset({Scope.READ, Scope.WRITE}))


@pytest.fixture
def store() -> MemoryTaskStore:
    return MemoryTaskStore(ManualClock())


REFUSED: dict[str, tuple[Any, ...]] = {
    "get": (),
    "cancel": (),
    "retry": (),
    "delete": (),
    "save_summary": (None,),
    "crawl_record": (),
}
EMPTY: dict[str, tuple[tuple[Any, ...], Any]] = {
    "chunks": ((), StoredChunks()),
    "results": ((0,), ()),
    "extend_wait": ((ManualClock().now(),), None),
}


@pytest.mark.parametrize("verb", REFUSED)
@pytest.mark.parametrize("owner", ["bob", None])
async def test_a_task_of_another_client_does_not_exist(store: MemoryTaskStore, verb: str, owner: str | None) -> None:
    task, _ = await store.create(NewTask(media_prefix="a", client=owner))
    method: Callable[..., Awaitable[Any]] = getattr(ClientScopedTasks(store, ANN), verb)
    with pytest.raises(TaskNotFound, match=f"There is no task {task.id}"):
        await method(task.id, *REFUSED[verb])
    assert await store.get(task.id) == task


@pytest.mark.parametrize("verb", EMPTY)
async def test_chunks_of_another_clients_task_are_not_shown(store: MemoryTaskStore, verb: str) -> None:
    task, _ = await store.create(NewTask(media_prefix="a", media_key="a/source", client="bob"))
    [claimed] = await store.claim("test", timedelta(seconds=30), 1, (0, 1, 2))
    lease = Lease(claimed.id, claimed.fence)
    await store.add_part(lease, 0, 0, 16_000, [Chunk(0, 0, 0, (Span(0, 16_000),))])
    before = await store.get(task.id)
    arguments, nothing = EMPTY[verb]
    method: Callable[..., Awaitable[Any]] = getattr(ClientScopedTasks(store, ANN), verb)
    assert await method(task.id, *arguments) == nothing
    assert await store.get(task.id) == before
    assert (await ClientScopedTasks(store, BOB).chunks(task.id)).chunks


async def test_every_method_with_a_task_id_is_tested_above() -> None:
    verbs = {
        name
        for name, method in inspect.getmembers(TaskRecords, inspect.isfunction)
        if "task_id" in inspect.signature(method).parameters
    }
    assert verbs == REFUSED.keys() | EMPTY.keys()


async def test_a_client_reads_and_changes_its_own_tasks(store: MemoryTaskStore) -> None:
    own = ClientScopedTasks(store, BOB)
    task, is_new = await own.create(NewTask(media_prefix="a", media_key="a/source"))
    assert (is_new, task.client) == (True, "bob")
    assert await own.get(task.id) == task
    assert (await own.cancel(task.id)).status is Status.CANCELLED
    assert (await own.retry(task.id)).status is Status.QUEUED
    assert await own.delete(task.id) == "a"


async def test_a_query_returns_only_the_clients_own_tasks(store: MemoryTaskStore) -> None:
    for owner in ("ann", "bob", None, "ann"):
        await store.create(NewTask(media_prefix="a", client=owner))
    page = await ClientScopedTasks(store, ANN).query(TaskQuery(client="bob"))
    assert (page.total_count, {task.client for task in page.tasks}) == (2, {"ann"})


async def test_a_created_task_belongs_to_and_counts_for_the_client(store: MemoryTaskStore) -> None:
    own = ClientScopedTasks(store, ANN)
    for _ in range(2):
        await own.create(NewTask(media_prefix="a", client="bob"))
    with pytest.raises(QuotaExceeded):
        await own.create(NewTask(media_prefix="a", client="bob"))
    assert (await own.client_load("ann")).queued_tasks == 2
