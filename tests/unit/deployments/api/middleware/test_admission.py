"""Limits on concurrent requests: of one client, of long-running requests, and in total."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Message

from deployments.api.application import build_api
from deployments.api.middleware.admission import RequestLimits, RequestSlots, is_lasting
from pipeline.errors import ServiceBusy, TooManyRequests
from pipeline.settings import HttpSettings
from tests.unit.deployments.api.serving import Reader, settle_with_threads
from tests.unit.deployments.api.world import World, slots_of

TASKS = "/api/whisper/tasks"
LIMITS = {
    "max_concurrent_requests_per_client": 3,
    "max_lasting_requests": 5,
    "max_concurrent_requests": 7,
}
AUTH = {
    "keys": [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "scopes": ["admin"]} for name in "abcdefgh"
    ]
}


def bounded(world: World, **settings: Any) -> FastAPI:
    return world.api(**{"http": LIMITS, "auth": AUTH} | settings)


def follower(key: str, address: str = "192.0.2.1") -> Reader:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return Reader(f"{TASKS}/events", "task_id=1", headers=headers, address=address)


async def start(app: FastAPI, *readers: Reader) -> list[asyncio.Task[None]]:
    requests = [asyncio.create_task(app(reader.scope(app), reader.receive, reader.send)) for reader in readers]
    await settle_with_threads()
    return requests


async def stop(requests: list[asyncio.Task[None]], *readers: Reader) -> None:
    for reader in readers:
        reader.leave()
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)


def hold(world: World) -> None:
    """Leave the task unchanged, and let a watcher wait without using the world's clock."""

    async def for_ever(_: float) -> None:
        await asyncio.Event().wait()

    world.dispatcher.on_wait = for_ever


async def test_a_client_has_its_share(world: World) -> None:
    hold(world)
    await world.queued()
    app = bounded(world)
    own, other = [follower("a") for _ in range(4)], follower("b")
    requests = await start(app, *own, other)
    assert [reader.status for reader in own] == [200, 200, 200, 429]
    assert own[3].answer_headers["retry-after"] == "2"
    assert b"3 of your requests are running, and the limit is 3" in own[3].content
    assert other.status == 200
    assert world.counted == {"requests_refused": 1.0}
    await stop(requests, *own, other)
    assert slots_of(app).taken == 0
    again = follower("a")
    await stop(await start(app, again), again)
    assert again.status == 200


async def test_streams_leave_slots_for_what_is_short_and_for_health(world: World) -> None:
    hold(world)
    await world.queued()
    app = bounded(world)
    streams = [follower(key) for key in "abcdef"]
    requests = await start(app, *streams)
    assert [reader.status for reader in streams] == [200] * 5 + [503]
    short = Reader(f"{TASKS}/result", "task_id=1", headers={"Authorization": "Bearer g"})
    waits = Reader(f"{TASKS}/result", "task_id=1&wait_s=9", headers={"Authorization": "Bearer g"})
    health = [Reader("/api/health/check"), Reader("/api/health/ready"), Reader("/docs")]
    await start(app, short, waits, *health)
    assert (short.status, waits.status) == (202, 503)
    assert [reader.status for reader in health] == [200, 200, 200]
    await stop(requests, *streams)
    assert slots_of(app).taken == 0


async def test_all_slots_taken_is_said_at_once_but_not_of_health(world: World) -> None:
    app = bounded(world, http=LIMITS | {"max_concurrent_requests": 5})
    hold(world)
    await world.queued()
    streams = [follower(key) for key in "abcde"]
    requests = await start(app, *streams)
    short = Reader(f"{TASKS}/result", "task_id=1", headers={"Authorization": "Bearer g"})
    health = Reader("/api/health/check")
    await start(app, short, health)
    assert (short.status, health.status) == (503, 200)
    await stop(requests, *streams)


def body(data: bytes) -> Message:
    return {"type": "http.request", "body": data, "more_body": True}


async def test_an_upload_that_drips_counts_and_leaves_with_its_client(world: World) -> None:
    app = bounded(world)
    slow = Reader(
        f"{TASKS}/create",
        method="POST",
        headers={"Authorization": "Bearer a", "Content-Type": "multipart/form-data; boundary=x"},
        sent=[body(b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc')],
    )
    requests = await start(app, slow)
    assert slots_of(app).taken == 1
    slow.leave()
    await asyncio.gather(*requests)
    assert (slots_of(app).taken, world.media.keys) == (0, frozenset())


async def test_without_keys_an_address_is_a_client(world: World) -> None:
    hold(world)
    await world.queued()
    app = bounded(world, auth={})
    for addresses, statuses in (
        (["192.0.2.1"] * 4, [200] * 3 + [429]),
        (["2001:db8::1", "2001:db8::2", "2001:db8::ffff:3", "2001:db8:0:0:4::"], [200] * 3 + [429]),
        (["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"], [200] * 4),
        (["127.0.0.1"] * 4, [200] * 4),
        ([""] * 4, [200] * 4),
    ):
        readers = [follower("", address) for address in addresses]
        requests = await start(app, *readers)
        assert [reader.status for reader in readers] == statuses
        await stop(requests, *readers)
    assert slots_of(app).taken == 0


async def test_behind_haproxy_an_address_is_nobodys(world: World) -> None:
    hold(world)
    await world.queued()
    app = build_api(replace(world.services(http=LIMITS), knows_addresses=False))
    readers = [follower("") for _ in range(4)]
    requests = await start(app, *readers)
    assert [reader.status for reader in readers] == [200] * 4
    await stop(requests, *readers)


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("POST", f"{TASKS}/create", b"", True),
        ("POST", "/v1/audio/transcriptions", b"", True),
        ("POST", "/v1/audio/translations", b"", True),
        ("POST", "/api/whisper/extract_audio", b"", True),
        ("POST", "/api/whisper/uploads", b"", True),
        ("PATCH", "/api/whisper/uploads/0", b"", True),
        ("POST", "/api/chatgpt/summary", b"", True),
        ("GET", f"{TASKS}/events", b"task_id=1", True),
        ("GET", f"{TASKS}/result", b"task_id=1&wait_s=60", True),
        ("GET", f"{TASKS}/result", b"task_id=1", False),
        ("HEAD", "/api/whisper/uploads/0", b"", False),
        ("POST", f"{TASKS}/query", b"", False),
        ("POST", f"{TASKS}/cancel", b"", False),
        ("DELETE", f"{TASKS}/delete", b"", False),
        ("GET", "/v1/models", b"", False),
    ],
)
def test_what_lasts(method: str, path: str, query: bytes, expected: bool) -> None:
    assert is_lasting(method, path, query) is expected


def test_slots_are_given_back_whatever_happens() -> None:
    slots = RequestSlots(RequestLimits.from_settings(HttpSettings(**LIMITS), 1000))
    for _ in range(20):
        with pytest.raises(RuntimeError), slots.hold("a", is_lasting=True):
            raise RuntimeError
    held = [slots.hold(name, is_lasting=False) for name in "aaabbbc"]
    for slot in held:
        slot.__enter__()
    with pytest.raises(TooManyRequests), slots.hold("a", is_lasting=False):
        pass
    with pytest.raises(ServiceBusy), slots.hold("d", is_lasting=False):
        pass
    for slot in held:
        slot.__exit__(None, None, None)
    assert slots.taken == 0


@pytest.mark.parametrize("capacity", [1, 2, 10, 200, 1000])
@pytest.mark.parametrize("named", [{}, LIMITS, dict.fromkeys(LIMITS, 100_000)])
def test_serve_has_slots_beside_ours(capacity: int, named: dict[str, int]) -> None:
    """Requests above Serve's own limit wait in its proxy, health checks included."""
    limits = RequestLimits.from_settings(HttpSettings(**named), capacity)
    assert 1 <= limits.lasting <= limits.total <= max(1, capacity * 9 // 10)
    assert limits.per_client >= 1


def test_the_limits_follow_the_serve_config() -> None:
    assert RequestLimits.from_settings(HttpSettings(), 1000) == RequestLimits(total=900, lasting=700, per_client=200)
    assert RequestLimits.from_settings(HttpSettings(), 200) == RequestLimits(total=180, lasting=140, per_client=40)
    assert RequestLimits.from_settings(HttpSettings(**LIMITS), 1000) == RequestLimits(total=7, lasting=5, per_client=3)
