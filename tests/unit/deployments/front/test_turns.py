from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from deployments.front.turns import FairStartMiddleware, client_key
from tests.support.clocks import settle


class HeldApplication:
    """Notes whose requests arrive; each starts its response when it is told to."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.answering = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.arrived.append(scope["path"])
        if scope["path"] == "/broken":
            raise RuntimeError("a defect")
        await asyncio.sleep(0)
        await self.answering.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()  # an answer that lasts


@pytest.fixture
def application() -> HeldApplication:
    return HeldApplication()


def request(path: str, key: str = "", address: str = "192.0.2.1", kind: str = "http") -> Scope:
    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
    return {"type": kind, "path": path, "headers": headers, "client": (address, 1)}


async def nothing() -> Message:
    raise AssertionError("nobody reads the request")


async def ignore(_message: Message) -> None:
    """Discard the response."""


@asynccontextmanager
async def under_way(app: Any, scopes: list[Scope]) -> AsyncIterator[None]:
    requests = [asyncio.create_task(app(scope, nothing, ignore)) for scope in scopes]
    await settle()
    try:
        yield
    finally:
        for each in requests:
            each.cancel()
        await asyncio.gather(*requests, return_exceptions=True)


def burst(app: Any, of_a: int, *others: Scope) -> AbstractAsyncContextManager[None]:
    return under_way(app, [*(request(f"/a{number}", "a") for number in range(of_a)), *others])


async def test_a_burst_of_one_client_leaves_half_of_the_places_to_others(application: HeldApplication) -> None:
    app = FairStartMiddleware(application, places=4, start_s=60)
    async with burst(app, 100, request("/b", "b"), request("/c", address="192.0.2.2")):
        assert application.arrived == ["/a0", "/a1", "/b", "/c"]


async def test_a_request_whose_response_starts_makes_room_for_the_next(application: HeldApplication) -> None:
    application.answering.set()
    app = FairStartMiddleware(application, places=2, start_s=60)
    async with burst(app, 10, request("/b", "b")):
        assert sorted(application.arrived) == sorted(["/b", *(f"/a{number}" for number in range(10))])
        assert application.arrived.index("/b") < 4


async def test_a_request_that_lasts_gives_its_place_back_in_time(application: HeldApplication) -> None:
    app = FairStartMiddleware(application, places=2, start_s=0.001)
    async with burst(app, 5):
        while len(application.arrived) < 5:
            await asyncio.sleep(0.001)


async def test_places_come_back_from_defects_and_from_clients_that_leave(application: HeldApplication) -> None:
    app = FairStartMiddleware(application, places=1, start_s=60)
    with pytest.raises(RuntimeError, match="a defect"):
        await app(request("/broken"), nothing, ignore)
    for _ in range(2):
        async with burst(app, 3):
            pass
    async with under_way(app, [request("/last", "b")]):
        assert application.arrived[-1] == "/last"


async def test_a_request_takes_one_place_however_often_it_passes(application: HeldApplication) -> None:
    app = FairStartMiddleware(FairStartMiddleware(application, places=1, start_s=60), places=1, start_s=60)
    async with under_way(app, [request("/once")]):
        assert application.arrived == ["/once"]


async def test_what_is_no_request_passes(application: HeldApplication) -> None:
    app = FairStartMiddleware(application, places=1, start_s=60)
    async with under_way(app, [request("/a", kind="lifespan"), request("/b", kind="lifespan")]):
        assert application.arrived == ["/a", "/b"]


def test_a_key_is_a_client_and_without_one_an_address() -> None:
    with_key = client_key(request("/", "secret"))
    assert with_key == client_key(request("/other", "secret", "192.0.2.9"))
    assert "secret" not in with_key
    assert client_key(request("/")) == "192.0.2.1"
    assert client_key({**request("/"), "client": None}) == "?"


async def test_clients_that_leave_are_reported_a_few_at_a_time() -> None:
    gone: list[str] = []

    async def read_to_the_end(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.disconnect"
        gone.append(scope["path"])

    async def leave() -> Message:
        return {"type": "http.disconnect"}

    app = FairStartMiddleware(read_to_the_end, places=100)
    requests = [asyncio.create_task(app(request(f"/{number}", "a"), leave, ignore)) for number in range(10)]
    await settle()
    assert gone == []
    await asyncio.gather(*requests)
    assert gone == [f"/{number}" for number in range(10)]


async def test_the_end_of_an_answered_request_is_reported_at_once() -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        assert (await receive())["type"] == "http.disconnect"

    async def leave() -> Message:
        return {"type": "http.disconnect"}

    app = FairStartMiddleware(answer)
    requests = [asyncio.create_task(app(request("/", "a"), leave, ignore)) for _ in range(100)]
    for _ in range(200):
        await asyncio.sleep(0)
    assert all(each.done() for each in requests)
    await asyncio.gather(*requests)


class Connection:
    """A request's connection as uvicorn keeps it."""

    def __init__(self) -> None:
        self.disconnected = False

    async def receive(self) -> Message:
        return {"type": "http.disconnect"}


async def test_requests_whose_clients_have_left_are_dropped_from_the_line(application: HeldApplication) -> None:
    app, connections = FairStartMiddleware(application, places=2, start_s=60), [Connection() for _ in range(1000)]
    requests = [
        asyncio.create_task(app(request(f"/{number}", "a"), connection.receive, ignore))
        for number, connection in enumerate(connections)
    ]
    await settle()
    for connection in connections[1:-1]:
        connection.disconnected = True
    requests[0].cancel()
    await asyncio.wait(requests[:-1])
    await settle()
    assert application.arrived == ["/0", "/999"]
    requests[-1].cancel()
    await asyncio.wait(requests)


async def test_health_checks_wait_for_nobody(application: HeldApplication) -> None:
    app = FairStartMiddleware(application, places=1, start_s=60)
    checks = [request("/api/health/check"), request("/api/health/ready")]
    async with under_way(app, [request("/a"), request("/b"), *checks]):
        assert application.arrived == ["/a", "/api/health/check", "/api/health/ready"]
