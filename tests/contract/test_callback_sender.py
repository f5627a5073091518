"""The sender of callbacks and its fake mean the same by the same receivers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from pipeline.net import GuardedClient
from pipeline.outbound.webhook_sender import WebhookSender
from pipeline.ports import CallbackResponse, CallbackSender, DeliveryVerdict, OutboxMessage
from pipeline.settings import CallbackSettings, NetworkSettings
from pipeline.system_clock import SystemClock
from pipeline.testing.fake_callback_sender import FakeCallbackSender
from pipeline.testing.local_receiver import answers, local_receiver
from pipeline.testing.scripted_network import LoopbackTransport, ScriptedResolver

Opener = Callable[[int, str], AbstractAsyncContextManager[tuple[CallbackSender, str]]]
"""Makes a receiver that answers with a status and a text, and gives a sender and the receiver's URL."""


@asynccontextmanager
async def over_sockets(status: int, text: str) -> AsyncIterator[tuple[CallbackSender, str]]:
    names = ScriptedResolver({"receiver.example": [["93.184.216.34"]]})
    client = GuardedClient(NetworkSettings(), names, connects=LoopbackTransport())
    async with local_receiver({"/": answers(status, text.encode())}) as receiver:
        yield WebhookSender(client, CallbackSettings(timeout_s=5), SystemClock()), receiver.url("/", "receiver.example")
    await client.aclose()


@asynccontextmanager
async def in_memory(status: int, text: str) -> AsyncIterator[tuple[CallbackSender, str]]:
    url = "http://receiver.example/"
    yield FakeCallbackSender({url: (status, text)}), url


@pytest.fixture(params=[over_sockets, in_memory])
def opener(request: pytest.FixtureRequest) -> Opener:
    chosen: Opener = request.param
    return chosen


@pytest.mark.parametrize(
    ("status", "text", "answer"),
    [
        (200, "thanks", CallbackResponse(DeliveryVerdict.DELIVERED, 200, "thanks")),
        (204, "", CallbackResponse(DeliveryVerdict.DELIVERED, 204, "")),
        (302, "over there", CallbackResponse(DeliveryVerdict.FINAL, 302, "over there")),
        (410, "gone", CallbackResponse(DeliveryVerdict.FINAL, 410, "gone")),
        (429, "slower", CallbackResponse(DeliveryVerdict.RETRY, 429, "slower")),
        (500, "x" * 1000, CallbackResponse(DeliveryVerdict.RETRY, 500, "x" * 512)),
    ],
)
async def test_an_answer(opener: Opener, status: int, text: str, answer: CallbackResponse) -> None:
    async with opener(status, text) as (sender, url):
        assert await sender.send(OutboxMessage(1, "msg_1", 1, url, 0), b"{}") == answer


async def test_no_answer(opener: Opener) -> None:
    async with opener(200, "") as (sender, url):
        dead = url.replace("receiver.example", "nobody.example")
        answer = await sender.send(OutboxMessage(1, "msg_1", 1, dead, 0), b"{}")

    assert (answer.verdict, answer.status_code) == (DeliveryVerdict.RETRY, None)
    assert answer.message
