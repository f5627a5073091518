"""A finished task's way to its receiver: the task store, the outbox, the courier, real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from standardwebhooks.webhooks import Webhook

from deployments.api.response.task_record import encode_record
from deployments.wiring import task_store
from pipeline.domain.decoding.transcript import Transcript, TranscriptInfo
from pipeline.domain.tasks.task import CallbackState, NewTask, Priority, TaskError
from pipeline.net import GuardedClient
from pipeline.outbound.webhook_sender import WebhookSender
from pipeline.ports import Lease, TaskStore
from pipeline.settings import CallbackSettings, NetworkSettings, Settings
from pipeline.system_clock import SystemClock
from pipeline.testing.local_receiver import Behaviour, LocalReceiver, ReceivedRequest, answers, local_receiver
from pipeline.testing.recording_metrics import RecordingMetrics
from pipeline.testing.scripted_network import LoopbackTransport, ScriptedResolver
from pipeline.usecases.callbacks.callback_delivery import CallbackDeliverer

T = TypeVar("T")

SECRET = "whsec_" + base64.b64encode(b"a secret of twenty-four b").decode()
TRANSCRIPT = Transcript("Hallo, Welt.", (), TranscriptInfo("de", 0.99, 1.5, 1.2))
QUICKLY = (0.05, 0.05)
"""Delays between attempts that a test can wait for."""


@dataclass
class CallbackService:
    """A store, a deliverer over it, and one receiver under several names.

    ``public.example`` has a public address (whose connections end here), ``allowed.example`` a private one that the
    operator allows, ``hidden.example`` a private one that nobody does.
    """

    store: TaskStore
    courier: CallbackDeliverer
    receiver: LocalReceiver

    async def complete(self, path: str, host: str = "public.example") -> int:
        """Create a task with a callback, and complete it."""
        url = self.receiver.url(path, host)
        task, _ = await self.store.create(NewTask(media_prefix="m", callback_url=url))
        ranks = [priority.rank for priority in Priority]
        (claimed,) = await self.store.claim("test", timedelta(minutes=1), 1, ranks)
        await self.store.complete(Lease(task.id, claimed.fence), TRANSCRIPT)
        self.courier.wake()
        return task.id

    async def callback_of(self, task_id: int, status_code: int | None = None) -> CallbackState:
        """Wait for the record of the callback, or for one with that status, and return it."""

        async def recorded() -> CallbackState | None:
            callback = (await self.store.get(task_id)).callback
            return callback if callback.time and status_code in (None, callback.status_code) else None

        return await first_result(recorded)

    async def requests_to(self, path: str, number: int) -> list[ReceivedRequest]:
        """Wait for so many requests to a path, and return them."""

        async def arrived() -> list[ReceivedRequest] | None:
            found = [request for request in self.receiver.requests if request.target == path]
            return found if len(found) >= number else None

        return await first_result(arrived)


async def first_result(look: Callable[[], Awaitable[T | None]]) -> T:
    """Return the first result of ``look`` that is not ``None``."""
    async with asyncio.timeout(10):
        while (found := await look()) is None:
            await asyncio.sleep(0.01)
        return found


@asynccontextmanager
async def service(
    folder: Path, behaviours: Mapping[str, Behaviour], *, delays_s: tuple[float, ...] = QUICKLY, timeout_s: float = 5.0
) -> AsyncIterator[CallbackService]:
    network = NetworkSettings(allow_private_hosts=("allowed.example",))
    callback = CallbackSettings.model_validate({"delays_s": delays_s, "timeout_s": timeout_s, "secret": SECRET})
    names = ScriptedResolver(
        {"public.example": [["93.184.216.34"]], "allowed.example": [["10.1.2.3"]], "hidden.example": [["10.1.2.4"]]}
    )
    clock, stop = SystemClock(), asyncio.Event()
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(local_receiver(behaviours))
        client = GuardedClient(network, names, connects=LoopbackTransport())
        stack.push_async_callback(client.aclose)
        store = task_store(Settings(data_dir=folder))
        stack.push_async_callback(store.close)
        await store.migrate()
        sender = WebhookSender(client, callback, clock)
        courier = CallbackDeliverer(
            store, sender, encode_record, clock, RecordingMetrics(), callback, owner="test", poll_s=0.02
        )
        loop = asyncio.create_task(courier.run(stop))
        yield CallbackService(store, courier, receiver)
        stop.set()
        await loop


async def test_a_callback_is_the_signed_record_with_its_result(tmp_path: Path) -> None:
    async with service(tmp_path, {"/hook": answers(204)}) as running:
        task_id = await running.complete("/hook")

        assert (await running.callback_of(task_id)).status_code == 204
        (request,) = running.receiver.requests

    body = Webhook(SECRET).verify(request.body, dict(request.headers))
    assert (body["id"], body["status"], body["result"]["text"]) == (task_id, "completed", "Hallo, Welt.")


@pytest.mark.parametrize(
    ("status", "headers", "attempts"),
    [(200, {}, 1), (302, {"Location": "/other"}, 1), (404, {}, 1), (410, {}, 1), (500, {}, 3), (408, {}, 3)],
)
async def test_how_often_a_receiver_is_asked(
    tmp_path: Path, status: int, headers: dict[str, str], attempts: int
) -> None:
    async with service(tmp_path, {"/hook": answers(status, b"so it is", headers)}) as running:
        task_id = await running.complete("/hook")

        requests = await running.requests_to("/hook", attempts)
        await asyncio.sleep(0.3)

        assert len(running.receiver.requests) == attempts
        assert len({request.headers["webhook-id"] for request in requests}) == 1
        callback = await running.callback_of(task_id)
        assert (callback.status_code, callback.message) == (status, "so it is")


async def test_a_receiver_that_asks_for_patience_is_given_it(tmp_path: Path) -> None:
    async with service(tmp_path, {"/hook": answers(429, headers={"Retry-After": "1"})}) as running:
        await running.complete("/hook")

        await asyncio.sleep(0.5)
        assert len(running.receiver.requests) == 1
        assert len(await running.requests_to("/hook", 2)) == 2


async def test_a_receiver_that_comes_back_gets_its_callback(tmp_path: Path) -> None:
    async def close(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        """Close the connection without a response."""

    async with service(tmp_path, {"/hook": close}, delays_s=(0.1,) * 50) as running:
        task_id = await running.complete("/hook")
        assert (await running.callback_of(task_id)).status_code is None

        running.receiver.behaviours["/hook"] = answers(200, b"back again")
        await running.callback_of(task_id, status_code=200)

        ids = {request.headers["webhook-id"] for request in running.receiver.requests}
        assert len(ids) == 1
        assert json.loads(running.receiver.requests[-1].body)["id"] == task_id


async def test_of_a_megabyte_of_text_the_beginning_is_recorded(tmp_path: Path) -> None:
    async with service(tmp_path, {"/hook": answers(200, b"x" * 1024 * 1024)}) as running:
        callback = await running.callback_of(await running.complete("/hook"))

    assert (callback.status_code, callback.message) == (200, "x" * 512)


async def test_what_a_private_receiver_says_is_not_recorded(tmp_path: Path) -> None:
    async with service(tmp_path, {"/hook": answers(200, b"internal")}) as running:
        callback = await running.callback_of(await running.complete("/hook", "allowed.example"))

    assert callback.status_code == 200
    assert "internal" not in (callback.message or "")


async def test_a_receiver_that_may_not_be_reached_is_not(tmp_path: Path) -> None:
    async with service(tmp_path, {"/hook": answers(200)}) as running:
        callback = await running.callback_of(await running.complete("/hook", "hidden.example"))

        assert running.receiver.requests == []
        assert callback.status_code is None
        assert "hidden.example is not a public address" in (callback.message or "")


async def test_slow_receivers_delay_no_other(tmp_path: Path) -> None:
    async def stall(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with service(tmp_path, {"/slow": stall, "/hook": answers(204)}, timeout_s=2.0) as running:
        for _ in range(10):
            await running.complete("/slow", "allowed.example")
        await running.requests_to("/slow", 1)

        started = asyncio.get_running_loop().time()
        assert (await running.callback_of(await running.complete("/hook"))).status_code == 204
        assert asyncio.get_running_loop().time() - started < 1.5


async def test_a_courier_that_starts_later_delivers_what_was_owed(tmp_path: Path) -> None:
    before = task_store(Settings(data_dir=tmp_path))
    await before.migrate()
    async with local_receiver({"/hook": answers(500)}) as dead:
        url = dead.url("/hook", "public.example")
    task, _ = await before.create(NewTask(media_prefix="m", callback_url=url))
    (claimed,) = await before.claim("test", timedelta(minutes=1), 1, [0, 1, 2])
    await before.fail(Lease(task.id, claimed.fence), TaskError("media_undecodable", "It is a picture."))
    await before.close()

    async with service(tmp_path, {}) as running:
        callback = await running.callback_of(task.id)

    assert (callback.status_code, callback.message) == (None, "No connection to public.example.")
