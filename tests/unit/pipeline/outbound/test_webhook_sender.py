import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from pipeline.errors import ConfigurationError
from pipeline.net import GuardedClient
from pipeline.outbound.webhook_sender import WebhookSender, classify_status, retry_after_s
from pipeline.ports import CallbackResponse, DeliveryVerdict, OutboxMessage
from pipeline.settings import CallbackSettings, NetworkSettings
from pipeline.system_clock import SystemClock
from pipeline.testing.local_receiver import Behaviour, LocalReceiver, ReceivedRequest, answers, head, local_receiver
from pipeline.testing.scripted_network import LoopbackTransport, ScriptedResolver

SECRET = "whsec_" + base64.b64encode(b"a secret of twenty-four b").decode()
NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
async def receiver() -> AsyncIterator[LocalReceiver]:
    async with local_receiver({"/": answers(204)}) as running:
        yield running


async def deliver(
    url: str, body: bytes = b"{}", *, secret: str | None = None, timeout_s: float = 5.0
) -> CallbackResponse:
    """Send a callback where public.example is public, private.example is allowed, and hidden.example is not."""
    names = ScriptedResolver(
        {"public.example": [["93.184.216.34"]], "private.example": [["10.1.2.3"]], "hidden.example": [["10.1.2.4"]]}
    )
    network = NetworkSettings(allow_private_hosts=("private.example",))
    client = GuardedClient(network, names, connects=LoopbackTransport())
    settings = CallbackSettings.model_validate({"timeout_s": timeout_s, "secret": secret})
    try:
        return await WebhookSender(client, settings, SystemClock()).send(OutboxMessage(1, "msg_1", 7, url, 0), body)
    finally:
        await client.aclose()


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [
        (DeliveryVerdict.DELIVERED, [200, 201, 202, 204, 299]),
        (DeliveryVerdict.RETRY, [408, 425, 429, 500, 502, 503, 504, 599]),
        (DeliveryVerdict.FINAL, [300, 301, 302, 304, 307, 308, 400, 401, 403, 404, 409, 410, 413, 422]),
    ],
)
def test_what_a_status_means(verdict: DeliveryVerdict, statuses: list[int]) -> None:
    assert {classify_status(status) for status in statuses} == {verdict}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Wed, 01 Jan 2025 12:01:30 GMT", 90.0),
        ("Wed, 01 Jan 2025 12:01:30 -0000", 90.0),
        ("Wed, 01 Jan 2025 11:00:00 GMT", 0.0),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
    ],
)
def test_retry_after(value: str, expected: float | None) -> None:
    assert retry_after_s(value, NOW) == expected


@given(
    st.text(max_size=40)
    | st.builds(
        "Wed, {} Jan {} {}:00:00 {}".format, *[st.integers(0, 10**10)] * 3, st.sampled_from(["GMT", "+9999", ""])
    )
)
def test_any_retry_after_is_a_time_or_nothing(value: str) -> None:
    seconds = retry_after_s(value, NOW)

    assert seconds is None or seconds >= 0


async def test_the_request_is_the_record_as_json_under_its_message_id(receiver: LocalReceiver) -> None:
    body = json.dumps({"id": 7, "text": "Grüße"}, ensure_ascii=False).encode()

    answer = await deliver(receiver.url("/", "public.example"), body)

    assert answer == CallbackResponse(DeliveryVerdict.DELIVERED, 204, "")
    (request,) = receiver.requests
    assert (request.method, request.body) == ("POST", body)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == "msg_1"
    sent_at = datetime.fromtimestamp(int(request.headers["webhook-timestamp"]), UTC)
    assert abs(sent_at - datetime.now(UTC)) < timedelta(seconds=10)
    assert "webhook-signature" not in request.headers


async def test_a_receiver_can_verify_the_signature(receiver: LocalReceiver) -> None:
    body = '{"text": "Grüße"}'.encode()

    await deliver(receiver.url("/", "public.example"), body, secret=SECRET)

    (request,) = receiver.requests
    assert Webhook(SECRET).verify(request.body, dict(request.headers)) == {"text": "Grüße"}


@pytest.mark.parametrize("secret", ["whsec_", "whsec_a", ""])
def test_a_secret_that_is_none_is_refused_without_being_shown(secret: str) -> None:
    settings = CallbackSettings.model_validate({"secret": secret})

    with pytest.raises(ConfigurationError, match=r"callback\.secret must be") as caught:
        WebhookSender(GuardedClient(NetworkSettings()), settings, SystemClock())
    assert caught.value.message.count("whsec_") == 1


async def test_a_redirect_is_final_and_not_followed(receiver: LocalReceiver) -> None:
    receiver.behaviours["/"] = answers(302, b"moved", {"Location": "/elsewhere"})

    answer = await deliver(receiver.url("/", "public.example"))

    assert (answer.verdict, answer.status_code, answer.message) == (DeliveryVerdict.FINAL, 302, "moved")
    assert len(receiver.requests) == 1


async def test_retry_after_reaches_the_caller(receiver: LocalReceiver) -> None:
    receiver.behaviours["/"] = answers(429, b"slower", {"Retry-After": "120"})

    answer = await deliver(receiver.url("/", "public.example"))

    assert answer == CallbackResponse(DeliveryVerdict.RETRY, 429, "slower", 120.0)


async def test_of_a_megabyte_only_the_beginning_is_read_and_kept(receiver: LocalReceiver) -> None:
    receiver.behaviours["/"] = answers(200, "ä".encode() * 500_000)

    answer = await deliver(receiver.url("/", "public.example"))

    assert answer == CallbackResponse(DeliveryVerdict.DELIVERED, 200, "ä" * 512)


async def test_an_answer_without_end_is_left_after_its_beginning(receiver: LocalReceiver) -> None:
    async def go_on(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(head(500, {}))
        while True:
            writer.write(b"x" * 1000)
            await writer.drain()

    receiver.behaviours["/"] = go_on

    answer = await deliver(receiver.url("/", "public.example"), timeout_s=1.0)

    assert answer == CallbackResponse(DeliveryVerdict.RETRY, 500, "x" * 512)


async def test_what_a_private_host_says_is_not_kept(receiver: LocalReceiver) -> None:
    receiver.behaviours["/"] = answers(500, b"password: swordfish")

    answer = await deliver(receiver.url("/", "private.example"))

    assert (answer.verdict, answer.status_code) == (DeliveryVerdict.RETRY, 500)
    assert answer.message == "The receiver's answer is not recorded, because its host is not public."


async def test_a_host_that_may_not_be_reached_ends_the_callback(receiver: LocalReceiver) -> None:
    answer = await deliver(receiver.url("/", "hidden.example"))

    assert (answer.verdict, answer.status_code) == (DeliveryVerdict.FINAL, None)
    assert "hidden.example is not a public address" in answer.message
    assert receiver.requests == []


async def test_an_answer_whose_status_comes_in_time_counts_though_its_body_does_not(receiver: LocalReceiver) -> None:
    async def stall(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {"Content-Length": "10"}))
        await asyncio.sleep(30)

    receiver.behaviours["/"] = stall

    answer = await deliver(receiver.url("/", "public.example"), timeout_s=0.2)

    assert (answer.verdict, answer.status_code) == (DeliveryVerdict.DELIVERED, 200)
    assert answer.message == "public.example did not answer in time."


async def silent(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def closes(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    pass


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (silent, "public.example did not answer in time."),
        (closes, "public.example closed the connection early, or does not speak HTTP."),
    ],
)
async def test_no_answer_is_tried_again(receiver: LocalReceiver, behaviour: Behaviour, message: str) -> None:
    receiver.behaviours["/"] = behaviour

    answer = await deliver(receiver.url("/", "public.example"), timeout_s=0.1)

    assert answer == CallbackResponse(DeliveryVerdict.RETRY, None, message)
