"""Pages of tasks with their transcripts: limited in bytes, and complete together."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from deployments.api.response.large_json import IN_MEMORY_BYTES, record_pieces
from deployments.api.response.task_record import task_record
from pipeline.domain.decoding.transcript import Transcript
from pipeline.domain.summaries.summary import SummaryOptions
from pipeline.domain.tasks.task import Task
from pipeline.errors import DatabaseUnavailable
from tests.unit.deployments.api.serving import Reader, settle_with_threads
from tests.unit.deployments.api.world import TRANSCRIPT, World, client_of, detail

QUERY = "/api/whisper/tasks/query"
PAGE_BYTES = 64 * 1024


def long(kibibytes: int) -> Transcript:
    segment = TRANSCRIPT.segments[0]
    lines = [replace(segment, id=number, text=' Ünïcode "quoted" 😀' * 20) for number in range(1, 2 * kibibytes)]
    return replace(TRANSCRIPT, text="long", segments=tuple(lines))


async def pages(client: httpx.AsyncClient, **condition: Any) -> list[dict[str, Any]]:
    """Return all pages by following ``next_offset``."""
    found: list[dict[str, Any]] = []
    offset: int | None = 0
    while offset is not None:
        answer = await client.post(QUERY, json={"offset": offset, **condition})
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["data"])
        offset = found[-1]["next_offset"]
        assert found[-1]["has_more"] is (offset is not None)
    return found


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_page_ends_with_the_task_that_fills_it(world: World, order: str) -> None:
    created = [(await world.completed(long(20))).id for _ in range(11)]
    async with client_of(world.api(http={"max_page_bytes": PAGE_BYTES})) as client:
        found = await pages(client, order=order)
    assert len(found) > 2
    shown = [task["id"] for page in found for task in page["tasks"]]
    assert shown == (created if order == "asc" else created[::-1])
    assert {page["total_count"] for page in found} == {11}
    for page in found:
        assert len(json.dumps(page["tasks"][:-1])) < 2 * PAGE_BYTES


async def test_a_page_has_one_task_at_least(world: World) -> None:
    for _ in range(3):
        await world.completed(long(200))
    async with client_of(world.api(http={"max_page_bytes": PAGE_BYTES})) as client:
        found = await pages(client)
    assert [len(page["tasks"]) for page in found] == [1, 1, 1]
    assert found[0]["tasks"][0]["result"]["segments"][-1]["id"] == 399


async def test_without_transcripts_a_page_is_as_long_as_it_is_asked_for(world: World) -> None:
    for _ in range(40):
        await world.completed(long(20))
    async with client_of(world.api(http={"max_page_bytes": PAGE_BYTES})) as client:
        [page] = await pages(client, include_result=False, limit=500)
        assert len(page["tasks"]) == 40
        assert {task["result"] for task in page["tasks"]} == {None}


async def test_no_tasks(world: World) -> None:
    async with client_of(world.api()) as client:
        assert await pages(client) == [{"tasks": [], "total_count": 0, "has_more": False, "next_offset": None}]


async def test_tasks_deleted_while_the_page_is_written_are_left_out(world: World) -> None:
    created = [(await world.completed(long(1))).id for _ in range(5)]
    query = world.store.query

    async def then_delete(asked: Any) -> Any:
        page = await query(asked)
        for task_id in (created[0], created[2]):
            await world.store.delete(task_id)
        return page

    world.store.query = then_delete  # type: ignore[method-assign]
    async with client_of(world.api()) as client:
        data = (await client.post(QUERY, json={})).json()["data"]
    assert [task["id"] for task in data["tasks"]] == [created[1], created[3], created[4]]


async def test_a_database_that_goes_away_ends_the_page(world: World) -> None:
    for _ in range(5):
        await world.completed(long(1))
    get, reads = world.store.get, 0

    async def goes_away(task_id: int, *, include_result: bool = False) -> Task:
        nonlocal reads
        reads += 1
        if reads > 2:
            raise DatabaseUnavailable("The database is away.")
        return await get(task_id, include_result=include_result)

    world.store.get = goes_away  # type: ignore[method-assign]
    async with client_of(world.api()) as client:
        data = (await client.post(QUERY, json={})).json()["data"]
        assert (len(data["tasks"]), data["has_more"], data["next_offset"]) == (2, True, 2)
        refused = await client.post(QUERY, json={})
        detail(refused, 503, "database_unavailable")


@pytest.mark.parametrize("transcript", [TRANSCRIPT, long(3), replace(TRANSCRIPT, segments=())])
async def test_a_record_in_pieces_is_the_record(world: World, transcript: Transcript) -> None:
    lease = await world.processing(file_name='"result":null,{}', summary_options=SummaryOptions())
    await world.store.complete(lease, transcript)
    task = await world.store.get(lease.task_id, include_result=True)
    whole = json.loads(task_record(task, "http://a").model_dump_json())
    pieces = b"".join(record_pieces(task_record(replace(task, result=None), "http://a"), task.result))
    assert json.loads(pieces) == whole
    assert [*json.loads(pieces)] == [*whole]
    without = replace(task, result=None)
    assert json.loads(b"".join(record_pieces(task_record(without), None)))["result"] is None


async def test_a_large_result_waits_on_disk_and_is_whole(world: World) -> None:
    task = await world.completed(long(3 * IN_MEMORY_BYTES // 1024))
    async with client_of(world.api()) as client:
        answer = await client.get(f"/api/whisper/tasks/result?task_id={task.id}")
        assert len(answer.content) > 2 * IN_MEMORY_BYTES
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert len(answer.json()["data"]["result"]["segments"]) == 6 * IN_MEMORY_BYTES // 1024 - 1
        subtitles = await client.get(f"/api/whisper/generate_subtitles?task_id={task.id}&output_format=json")
        assert len(subtitles.json()["segments"]) == 6 * IN_MEMORY_BYTES // 1024 - 1


async def test_transcripts_are_read_few_at_a_time_and_clients_take_turns(world: World) -> None:
    task = await world.completed(long(1))
    app = world.api(http={"max_results_in_hand": 1})
    get, reading, order = world.store.get, 0, list[str]()
    gate = asyncio.Event()

    async def slow(task_id: int, *, include_result: bool = False) -> Task:
        nonlocal reading
        if not include_result:
            return await get(task_id)
        reading += 1
        assert reading == 1
        await gate.wait()
        reading -= 1
        return await get(task_id, include_result=True)

    world.store.get = slow  # type: ignore[method-assign]
    readers = [
        Reader("/api/whisper/tasks/result", f"task_id={task.id}", address=f"192.0.2.{client}")
        for client in (1, 1, 1, 1, 2)
    ]
    for reader in readers:
        reader.on_read = lambda part, reader=reader: part and order.append(reader.address)
    requests = []
    for reader in readers:
        requests.append(asyncio.create_task(app(reader.scope(app), reader.receive, reader.send)))
        await settle_with_threads(40)
    gate.set()
    await asyncio.gather(*requests)
    assert order.index("192.0.2.2") <= 2  # after one earlier request and the one already being read
