"""Request bodies as they arrive from a socket: in blocks of any size, too large, cut off, or mislabelled."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.types import Message

from deployments.api.middleware import body_limit
from deployments.api.middleware.body_limit import DRAIN_BYTES
from deployments.api.request.body import MAX_FIELDS
from deployments.api.request.multipart import MAX_FIELD_BYTES
from tests.support.builders import blocks
from tests.unit.deployments.api.world import World, client_of, detail, fields

CREATE = "/api/whisper/tasks/create"
MULTIPART = {"content-type": "multipart/form-data; boundary=edge"}


def part(name: str, content: bytes, file_name: str | None = None) -> bytes:
    shown = "" if file_name is None else f'; filename="{file_name}"'
    return f'--edge\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n\r\n'.encode() + content + b"\r\n"


END = b"--edge--\r\n"
AUDIO = b"\r\n--edg not yet" * 50
WHOLE = part("priority", b"low") + part("file_upload", AUDIO, "a.mp3") + part("beam_size", b"2") + END


@pytest.mark.parametrize("block_size", [1, 7, 64, 10_000])
async def test_blocks_of_any_size(client: httpx.AsyncClient, world: World, block_size: int) -> None:
    cut = [WHOLE[start : start + block_size] for start in range(0, len(WHOLE), block_size)]
    answer = await client.post(CREATE, content=blocks(*cut), headers=MULTIPART)
    record = answer.json()["data"]
    assert (record["priority"], record["decode_options"]["beam_size"]) == ("low", 2)
    assert await world.media.read(record["file_path"]) == AUDIO


async def test_a_file_goes_to_the_store_while_it_arrives(world: World) -> None:
    seen: list[int] = []
    write = world.media.write

    async def watched_write(key: str, data: AsyncIterator[bytes]) -> int:
        async def watched() -> AsyncIterator[bytes]:
            async for block in data:
                seen.append(sent)
                yield block

        return await write(key, watched())

    world.media.write = watched_write  # type: ignore[method-assign]
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        yield part("file", b"", "a.mp3").removesuffix(b"\r\n")
        for _ in range(5):
            sent += 1
            yield b"x" * 1000
        yield b"\r\n" + END

    async with client_of(world.api()) as client:
        assert (await client.post(CREATE, content=body(), headers=MULTIPART)).status_code == 200
    assert seen[:3] == [1, 2, 3]


@pytest.mark.parametrize("cut_at", [10, 60, 200, len(WHOLE) - 60, len(WHOLE) - len(END) + 4])
async def test_a_body_that_ends_too_early_leaves_nothing(client: httpx.AsyncClient, world: World, cut_at: int) -> None:
    detail(await client.post(CREATE, content=WHOLE[:cut_at], headers=MULTIPART), 400, "upload_interrupted")
    assert (await world.task_count(), world.media.keys) == (0, frozenset())


async def raw_upload(world: World, messages: list[Message]) -> list[Message]:
    """Send a request as a list of ASGI messages and return the response."""
    sent: list[Message] = []
    waiting = iter(messages)

    async def receive() -> Message:
        message = next(waiting, None)
        if message is None:  # the client sends nothing more, but stays connected
            await asyncio.Event().wait()
        assert message is not None
        return message

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": CREATE, "raw_path": CREATE.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"content-type", MULTIPART["content-type"].encode()), (b"host", b"service")],
        "server": ("service", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    await world.api()(scope, receive, send)
    return sent


def body_message(data: bytes) -> Message:
    return {"type": "http.request", "body": data, "more_body": True}


async def test_a_client_that_disconnects_leaves_nothing(world: World) -> None:
    sent = await raw_upload(world, [body_message(WHOLE[:300]), {"type": "http.disconnect"}])
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["detail"]["error"] == "upload_interrupted"
    assert (await world.task_count(), world.media.keys) == (0, frozenset())


async def test_a_request_that_is_cancelled_leaves_nothing(world: World) -> None:
    upload = asyncio.create_task(raw_upload(world, [body_message(WHOLE[:300])]))
    for _ in range(20):
        await asyncio.sleep(0)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert (await world.task_count(), world.media.keys) == (0, frozenset())


async def test_too_large_is_refused_while_it_arrives(world: World) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        yield part("file", b"", "a.mp3").removesuffix(b"\r\n")
        while True:
            read += 100_000
            yield b"x" * 100_000

    async with client_of(world.api(media={"max_upload_bytes": 150_000})) as client:
        answer = await client.post(CREATE, content=body(), headers=MULTIPART)
    message = detail(answer, 413, "upload_too_large")["message"]
    [arrived] = re.findall(r"([0-9,]+) bytes have arrived", message)
    assert 150_000 < int(arrived.replace(",", "")) <= 200_000
    assert "150,000" in message
    assert read < DRAIN_BYTES + 500_000
    assert (await world.task_count(), world.media.keys) == (0, frozenset())


async def test_too_large_is_refused_by_its_announcement(world: World) -> None:
    async with client_of(world.api(media={"max_upload_bytes": 1_000})) as client:
        headers = MULTIPART | {"content-length": "2000000"}
        answer = await client.post(CREATE, content=blocks(b"--edge"), headers=headers)
    message = detail(answer, 413, "upload_too_large")["message"]
    assert "2,000,000 bytes" in message
    assert "1,000" in message


async def test_what_is_left_of_a_small_body_is_received_before_an_error(world: World) -> None:
    left = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal left
        for left in range(9, -1, -1):  # noqa: B007
            yield b"x" * 1000

    async with client_of(world.api()) as client:
        answer = await client.post(CREATE, content=body(), headers={"content-type": "audio/mpeg"})
    detail(answer, 415, "unsupported_media_type")
    assert left == 0


async def test_a_mistake_in_the_query_needs_no_upload(world: World) -> None:
    async with client_of(world.api()) as client:
        answer = await client.post(f"{CREATE}?beam_size=x", content=WHOLE, headers=MULTIPART)
    detail(answer, 422, "invalid_value")
    assert world.media.keys == frozenset()


async def test_a_client_that_stops_sending_gets_its_error_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit, "DRAIN_S", 0.01)
    sent = await raw_upload(world, [body_message(part("audio", b"", "a.mp3"))])
    assert sent[0]["status"] == 422


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "multipart/form-data"}, WHOLE),
        ({"content-type": f"multipart/form-data; boundary={'b' * 300}"}, WHOLE),
        (MULTIPART, b"this is not multipart at all"),
        (MULTIPART, b"--edge\r\nno header\r\n\r\n"),
        (MULTIPART, b"--edge\r\nContent-Disposition: form-data\r\n\r\nx\r\n--edge--\r\n"),
        (MULTIPART, b"".join(part(f"f{number}", b"") for number in range(MAX_FIELDS + 1)) + END),
        ({"content-type": "application/x-www-form-urlencoded"}, b"platform=%ff"),
        ({"content-type": "application/x-www-form-urlencoded"}, b"platform=\xff"),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a=1&" * 300),
    ],
)
async def test_broken_bodies(client: httpx.AsyncClient, world: World, headers: dict[str, str], body: bytes) -> None:
    detail(await client.post(CREATE, content=body, headers=headers), 400, "bad_request")
    assert world.media.keys == frozenset()


@pytest.mark.parametrize(
    ("name", "content", "file_name"),
    [
        ("audio", b"x", "a.mp3"),
        ("platform", b"\xff\xfe", None),
        ("platform", b"x" * (MAX_FIELD_BYTES + 1), None),
    ],
)
async def test_parts_that_can_not_be(
    client: httpx.AsyncClient, name: str, content: bytes, file_name: str | None
) -> None:
    body = part(name, content, file_name) + END
    assert fields(detail(await client.post(CREATE, content=body, headers=MULTIPART), 422, "invalid_value")) == [name]


async def test_a_form_of_megabytes(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    detail(await client.post(CREATE, content=b"a" * 2_000_000, headers=headers), 413, "upload_too_large")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("talk.mp3", "talk.mp3"),
        ("../../etc/passwd", "passwd"),
        (r"C:\Users\me\talk.mp3", "talk.mp3"),
        ("Gespräch 你好.m4a", "Gespräch 你好.m4a"),
        ("a\x1b[31m\x00b\u202egpj.mp3", "a[31mbgpj.mp3"),
        ("x" * 400 + ".mp3", "x" * 251 + ".mp3"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.mp3",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.mp3",
        ),
        ("👨‍👩‍👧‍👦 🇩🇪.mp4", "👨‍👩‍👧‍👦 🇩🇪.mp4"),
        ("x%22y;z.wav", 'x"y;z.wav'),
        ("a%0D%0Ab%09c.wav", "abc.wav"),
        ("100%25.wav", "100%25.wav"),
        ("a%2Fb%5Cc%00%252.wav", "a%2Fb%5Cc%00%252.wav"),
    ],
)
async def test_a_file_name_is_only_a_name(client: httpx.AsyncClient, sent: str, kept: str) -> None:
    answer = await client.post(CREATE, content=part("file", b"audio", sent) + END, headers=MULTIPART)
    assert answer.json()["data"]["file_name"] == kept


@pytest.mark.parametrize(
    "disposition",
    [
        b"filename*=utf-8''%E4%BD%A0%E5%A5%BD.mp3",
        b"filename=\"=?utf-8?B?5L2g5aW9Lm1wMw==?=\"; filename*=UTF-8'zh'..%2F%E4%BD%A0%E5%A5%BD.mp3",
        "filename=你好.mp3".encode(),
    ],
)
async def test_an_encoded_file_name_is_decoded(client: httpx.AsyncClient, disposition: bytes) -> None:
    head = b"--edge" + b'\r\nContent-Disposition: form-data; name="file"; ' + disposition + b"\r\n\r\n"
    answer = await client.post(CREATE, content=head + b"audio\r\n" + END, headers=MULTIPART)
    assert answer.json()["data"]["file_name"] == "你好.mp3"


async def test_a_file_without_a_name(client: httpx.AsyncClient) -> None:
    answer = await client.post(CREATE, content=part("file", b"audio") + END, headers=MULTIPART)
    assert answer.json()["data"]["file_name"] is None
