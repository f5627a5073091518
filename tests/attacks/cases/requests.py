"""Requests that are too much before they are trusted: headers, parts, JSON, connections."""

from __future__ import annotations

import asyncio
import gzip
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from tests.attacks.case import Attack, Case, Scene
from tests.attacks.service import ATTACKER
from tests.attacks.wire import (
    connect,
    cut,
    exchange,
    form_request,
    head,
    json_request,
    keep,
    many,
    pour,
    status_of,
)

CREATE = "/api/whisper/tasks/create"
ECHO = "/api/whisper/callback/test"
QUERY = "/api/whisper/tasks/query"
MEBIBYTE = 1024 * 1024
OTHERS_FAULT = ("source_unreachable", "source_error", "source_timeout")
"""Reasons of failed tasks for which an odd URL is to blame."""
ENDLESS_STOP_MIB = 300
"""The harness itself stops here."""
DEEP = 100_000
DEPTHS = (100, 250, 256, 300, 500, 900, 990)
"""Where one library or another gives up."""
FILE_PART = b'--e\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n\r\n'
END = b"--e--\r\n"
SURROGATE = b'{"a": "\\ud800"}'


def endless_header(connections: int) -> Attack:
    """Send a header that never ends, without a key."""

    async def attack(scene: Scene) -> None:
        megabytes = scene.size(ENDLESS_STOP_MIB, 16) // connections
        scene.begin()

        async def one() -> int:
            reader, writer = await connect(scene.target)
            beginning = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
            sent = await pour(writer, itertools.chain([beginning], itertools.repeat(b"a" * 65_536, megabytes * 16)))
            status = await status_of(reader, 2.0)
            statuses[status] += 1
            writer.close()
            return sent

        statuses: Counter[str] = Counter()
        sent = await asyncio.gather(*(one() for _ in range(connections)))
        scene.notes.append(f"taken: {sum(sent) / MEBIBYTE:.1f} MiB")
        scene.note_statuses("answers", statuses)
        if sum(sent) > 8 * MEBIBYTE:
            scene.flaws.append("headers of any length are taken")
        await scene.hold()

    return attack


async def many_headers(scene: Scene) -> None:
    lines = [b"X-%d: v\r\n" % number for number in range(scene.size(100_000, 20_000))]
    request = [b"GET /api/health/check HTTP/1.1\r\nHost: a\r\n", *cut(b"".join(lines)), b"\r\n"]
    scene.begin()
    statuses = await many(scene.size(8, 2), lambda _: exchange(scene.target, request), at_once=8)
    scene.note_statuses("answers", statuses)
    if any(status.startswith("2") for status in statuses):
        scene.flaws.append("100,000 headers are taken")
    await scene.hold()


async def slowloris(scene: Scene) -> None:
    """Open connections that never finish their header, a byte at a time, without a key."""
    connections = [await connect(scene.target) for _ in range(scene.size(1500, 50))]
    for _, writer in connections:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
    scene.begin()
    alive = len(connections)
    async for alive in keep(connections, b"a", period_s=1.0):
        if scene.is_over or not alive:
            break
    scene.notes.append(f"{alive} of {len(connections)} still open")
    await scene.hold()
    for _, writer in connections:
        writer.transport.abort()


async def empty_parts(scene: Scene) -> None:
    body = FILE_PART * scene.size(600_000, 60_000) + END
    scene.notes.append(f"{len(body) / MEBIBYTE:.0f} MiB")
    scene.begin()
    statuses = await many(2, lambda _: exchange(scene.target, form_request(CREATE, body), 120.0), at_once=2)
    scene.note_statuses("answers", statuses)
    await scene.hold()


async def near_boundaries(scene: Scene) -> None:
    """Send a recording full of near copies of its boundary, so that a parser looks again at each byte."""
    part = b'--e\r\nContent-Disposition: form-data; name="file_upload"; filename="a.wav"\r\n\r\n'
    body = part + b"\r\n-" * (scene.size(24, 3) * MEBIBYTE // 3) + b"\r\n" + END
    scene.begin()
    statuses = await many(2, lambda _: exchange(scene.target, form_request(CREATE, body), 120.0), at_once=2)
    scene.note_statuses("answers", statuses)
    await scene.hold()


async def long_part_header(scene: Scene) -> None:
    """Send one part whose own header has no end, and one with 100,000 of them."""
    long = b'--e\r\nContent-Disposition: form-data; name="' + b"a" * (scene.size(30, 4) * MEBIBYTE) + b'"\r\n\r\nx\r\n'
    headers = b"".join(b"X-%d: v\r\n" % number for number in range(scene.size(1_000_000, 100_000)))
    numerous = b"--e\r\n" + headers + b'Content-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    scene.begin()
    for name, body in (("long", long + END), ("numerous", numerous + END)):
        status = await exchange(scene.target, form_request(CREATE, body), 120.0)
        scene.note_statuses(name, Counter([status]))
    await scene.hold()


async def tiny_chunks(scene: Scene) -> None:
    """Send a body in chunks of one byte."""
    headers = {
        "Content-Type": "multipart/form-data; boundary=e",
        "Transfer-Encoding": "chunked",
        "Connection": "close",
    }
    part = b'--e\r\nContent-Disposition: form-data; name="file_upload"; filename="a.wav"\r\n\r\n'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in part) + b"1\r\na\r\n" * scene.size(3_000_000, 100_000)
    request = [head("POST", CREATE, headers), *cut(chunks), b"0\r\n\r\n"]
    scene.begin()
    statuses = await many(2, lambda _: exchange(scene.target, request, 120.0), at_once=2)
    scene.note_statuses("answers", statuses)
    await scene.hold()


def _odd_json() -> Iterator[tuple[str, Sequence[bytes]]]:
    echo = [
        *((f"{depth} levels", b'{"a":' + b"[" * depth + b"]" * depth + b"}") for depth in DEPTHS),
        ("deep", b"[" * DEEP + b"]" * DEEP),
        ("deep objects", b'{"a":' * DEEP + b"1" + b"}" * DEEP),
        ("deep and unfinished", b'{"a":' * DEEP),
        ("lone surrogate", SURROGATE),
        ("lone surrogate as a name", b'{"\\ud800": 1}'),
        ("a number of a million digits", b'{"a": ' + b"9" * 900_000 + b"}"),
        ("a number with a large exponent", b'{"a": 1e999999}'),
        ("NaN", b'{"a": NaN}'),
        ("UTF-16", '{"a": 1}'.encode("utf-16")),
        ("no UTF-8", b'{"a": "\xff"}'),
        ("a zero byte", b'{"a": "\\u0000"}'),
        ("the same name 100,000 times", b"{" + b'"a":1,' * 100_000 + b'"a":1}'),
        ("a list of 400,000", b'{"a": [' + b"1," * 400_000 + b"1]}"),
    ]
    for name, body in echo:
        yield f"callback/test, {name}", json_request(ECHO, body)
    for name, body in echo[: len(DEPTHS) + 8]:
        yield f"query, {name}", json_request("/api/whisper/tasks/query", body)
        yield f"summary, {name}", json_request("/api/chatgpt/summary", body)
    fields = {
        "language": b'{"language": "\\ud800"}',
        "offset": b'{"offset": 1e308}',
        "limit": b'{"limit": 99999999999999999999999}',
        "created_after": b'{"created_after": "0000-00-00"}',
        "created_before": b'{"created_before": 1e300}',
    }
    for name, body in fields.items():
        yield f"query, odd {name}", json_request("/api/whisper/tasks/query", body)
    surrogate = b'{"task_id": 1, "chatgpt_prompt": "\\ud800", "chatgpt_model": "\\udfff"}'
    yield "summary, lone surrogate in a prompt", json_request("/api/chatgpt/summary", surrogate)


async def odd_json(scene: Scene) -> None:
    scene.begin()
    statuses: Counter[str] = Counter()
    for name, request in _odd_json():
        status = await exchange(scene.target, request)
        statuses[status] += 1
        if not status.startswith(("2", "4")):
            scene.flaws.append(f"{name}: {status}")
    scene.note_statuses("answers", statuses)
    await scene.hold()


ODD_OPTIONS = {
    "clip_timestamps": ("1e308", "0,0.001", "0,1e308", "0,1e-300", "nan", "inf", "-1", "5,4", "0," * 20_000 + "1"),
    "temperature": ("1e308", "nan", "-1", "0," * 10_000 + "1", "1e-320"),
    "language": ("\ud800", "x" * 50_000, "en\0"),
    "languages": (",".join(["en"] * 16_000), "\ud800"),
    "hotwords": ("a" * 60_000, "\0", "\ud800"),
    "initial_prompt": ("a" * 60_000, "\0", "\ud800", "\U0010ffff" * 10_000),
    "beam_size": ("9" * 5000, "1e9", "0", "20.5"),
    "best_of": ("9" * 5000, "-1"),
    "hallucination_silence_threshold": ("1e308", "-1", "nan"),
    "compression_ratio_threshold": ("1e-308", "1e308", "nan"),
    "platform": ("\0", "\ud800", "'; DROP TABLE tasks; --"),
    "callback_url": ("http://" + "a" * 3000, "http://[::1", "http://\0/", "http://a:99999999/"),
    "upload_id": ("\0", "\ud800", "0" * 32),
    "file_url": ("http://\ud800/", "http://127.0.0.1:0/", "http://127.0.0.1/\r\nX: 1"),
    "model": ("\0", "../../etc/passwd"),
}
"""By option: values that no one may send, as fields of a form."""


async def odd_options(scene: Scene) -> None:
    """Send options at the edges of their types: each is a client's error or takes effect, and none costs an attempt."""
    scene.begin()
    statuses: Counter[str] = Counter()
    for name, values in ODD_OPTIONS.items():
        for value in values:
            status = await exchange(scene.target, form_request(CREATE, _form(name, value, scene.site.clip)))
            statuses[status] += 1
            if not status.startswith(("2", "4")):
                scene.flaws.append(f"{name}={ascii(value)[:24]}: {status}")
    scene.note_statuses("answers", statuses)
    await _expect_no_defects(scene)
    await scene.hold()


async def _expect_no_defects(scene: Scene) -> None:
    """Check that no accepted task ends with a defect of the service."""
    async with scene.target.async_client(ATTACKER) as client:
        condition = {"status": None, "priority": None, "has_result": None, "has_error": None, "limit": 500}
        page = (await client.post(QUERY, json=condition | {"include_result": False})).raise_for_status().json()
        statuses: Counter[str] = Counter()
        for task in page["data"]["tasks"]:
            status, reason = await _end_of(client, task["id"])
            statuses[status] += 1
            if status.startswith("5") and reason not in OTHERS_FAULT:
                scene.flaws.append(f"accepted, then {status} {reason}: {_odd_option(task)}")
    scene.note_statuses("results of what was accepted", statuses)


async def _end_of(client: httpx.AsyncClient, task_id: int) -> tuple[str, str]:
    for _ in range(6):
        answer = await client.get("/api/whisper/tasks/result", params={"task_id": task_id, "wait_s": 20})
        if answer.status_code != httpx.codes.ACCEPTED:
            break
    reason = answer.json()["detail"]["error"] if answer.is_error else ""
    return str(answer.status_code), reason


def _odd_option(task: dict[str, Any]) -> str:
    options: dict[str, Any] = task["decode_options"]
    return ascii({name: options[name] for name in ODD_OPTIONS if options.get(name)})[:120]


def _form(name: str, value: str, media: bytes) -> bytes:
    text = value.encode("utf-8", "surrogatepass")
    field = b'--e\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), text)
    file = b'--e\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + media + b"\r\n"
    return field + file + END


async def large_prompt(scene: Scene) -> None:
    """Text of 10 MB where a sentence is meant, in a form, in the query string and in JSON."""
    text = "a" * (10 * MEBIBYTE)
    summary = {"task_id": 1, "chatgpt_prompt": text}
    scene.begin()
    requests = {
        "form": form_request(CREATE, _form("initial_prompt", text, b"")),
        "query string": [head("POST", f"{CREATE}?hotwords={text}")],
        "JSON": json_request("/api/chatgpt/summary", summary),
    }
    for name, request in requests.items():
        statuses = await _several(scene, request, 4)
        scene.note_statuses(name, statuses)
        if any(status.startswith("2") for status in statuses):
            scene.flaws.append(f"10 MB of text are taken as {name}")
    await scene.hold()


async def _several(scene: Scene, request: Sequence[bytes], count: int) -> Counter[str]:
    return await many(count, lambda _: exchange(scene.target, request, 60.0), at_once=count)


async def packed_body(scene: Scene) -> None:
    """Send a megabyte of gzip that unpacks to a gigabyte, as JSON and as a form."""
    content = gzip.compress(b" " * (scene.size(1024, 64) * MEBIBYTE), 9)
    scene.begin()
    for media_type, path in (("application/json", ECHO), ("multipart/form-data; boundary=e", CREATE)):
        headers = {"Content-Type": media_type, "Content-Encoding": "gzip", "Content-Length": str(len(content))}
        request = [head("POST", path, headers | {"Connection": "close"}), *cut(content)]
        scene.note_statuses(path, await _several(scene, request, 4))
    await scene.hold()


async def event_streams(scene: Scene) -> None:
    """Open streams of one key, all about one task that does not end."""
    async with scene.target.async_client(ATTACKER) as client:
        answer = await client.post(CREATE, params={"file_url": scene.site.url("/drip", "127.0.0.3")})
        task_id = answer.json()["data"]["id"]
    statuses, streams = await _open_streams(scene, f"/api/whisper/tasks/events?task_id={task_id}")
    await scene.hold()
    scene.note_statuses("streams", statuses)
    for _, writer in streams:
        writer.transport.abort()


async def abandoned_streams(scene: Scene) -> None:
    """Event streams whose clients go away at once, and say beforehand that this is to end nothing."""
    async with scene.target.async_client(ATTACKER) as client:
        answer = await client.post(CREATE, params={"file_url": scene.site.url("/drip", "127.0.0.3")})
        task_id = answer.json()["data"]["id"]
    request = head("GET", f"/api/whisper/tasks/events?task_id={task_id}", {"X-Request-Disconnect-Disabled": "?1"})
    for _ in range(scene.size(1200, 20)):
        _, writer = await connect(scene.target)
        writer.write(request)
        await writer.drain()
        writer.close()
    await scene.hold()


async def long_polls(scene: Scene) -> None:
    """Send requests of one key that wait for the same result."""
    async with scene.target.async_client(ATTACKER) as client:
        answer = await client.post(CREATE, params={"file_url": scene.site.url("/drip", "127.0.0.3")})
        task_id = answer.json()["data"]["id"]
    streams = []
    for _ in range(scene.size(1200, 20)):
        reader, writer = await connect(scene.target)
        writer.write(head("GET", f"/api/whisper/tasks/result?task_id={task_id}&wait_s=60"))
        streams.append((reader, writer))
    await asyncio.sleep(2.0)
    await scene.hold()
    for _, writer in streams:
        writer.transport.abort()


async def _open_streams(scene: Scene, path: str) -> tuple[Counter[str], list[tuple[object, asyncio.StreamWriter]]]:
    streams = []
    for _ in range(scene.size(1200, 20)):
        reader, writer = await connect(scene.target)
        writer.write(head("GET", path))
        streams.append((reader, writer))
    scene.begin()
    statuses = Counter(await asyncio.gather(*(status_of(reader, 20.0) for reader, _ in streams)))
    return statuses, streams  # type: ignore[return-value]


async def stalled_uploads(scene: Scene) -> None:
    """Begin uploads that stop a byte before their end."""
    media = bytes(1 * MEBIBYTE)
    part = b'--e\r\nContent-Disposition: form-data; name="file_upload"; filename="a.wav"\r\n\r\n' + media
    headers = {"Content-Type": "multipart/form-data; boundary=e", "Content-Length": str(len(part) + 8)}
    connections = []
    for _ in range(scene.size(300, 10)):
        connection = await connect(scene.target)
        await pour(connection[1], [head("POST", CREATE, headers), *cut(part)])
        connections.append(connection)
    scene.begin()
    await scene.hold()
    statuses = Counter(await asyncio.gather(*(status_of(reader, 0.1) for reader, _ in connections)))
    scene.note_statuses("uploads", statuses)
    for _, writer in connections:
        writer.transport.abort()


async def pipelined(scene: Scene) -> None:
    """Send thousands of requests on one connection, and do not read the responses."""
    request = head("GET", "/openapi.json", client=None)
    connections = [await connect(scene.target, 4096) for _ in range(4)]
    scene.begin()
    sending = [
        asyncio.create_task(pour(writer, itertools.repeat(request * 100, scene.size(100, 10))))
        for _, writer in connections
    ]
    await scene.hold()
    sent = sum(task.result() // len(request) for task in sending if task.done())
    scene.notes.append(f"{sent} requests were taken by then")
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
    for _, writer in connections:
        writer.transport.abort()


async def websockets(scene: Scene) -> None:
    """Request upgrades that the service does not offer, and leave each connection open."""
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    scene.begin()
    request = [head("GET", "/api/whisper/tasks/events?task_id=1", headers)]
    statuses = await many(scene.size(500, 20), lambda _: exchange(scene.target, request, 10.0), at_once=50)
    scene.note_statuses("answers", statuses)
    await scene.hold()


async def many_connections(scene: Scene) -> None:
    """Open connections that send nothing at all."""
    connections = [await connect(scene.target) for _ in range(scene.size(3000, 100))]
    scene.begin()
    await scene.hold()
    for _, writer in connections:
        writer.transport.abort()


CASES = (
    Case("endless-header", "a header without end, no key", endless_header(1), spoils=True, quick=True),
    Case("endless-headers", "30 headers of 10 MiB at once, no key", endless_header(30), spoils=True),
    Case("many-headers", "8 × 100,000 headers, no key", many_headers, spoils=True, quick=True),
    Case("slowloris", "1,500 connections that drip a header", slowloris),
    Case("silent-connections", "3,000 connections that say nothing", many_connections),
    Case("empty-parts", "2 × 600,000 empty file parts (38 MiB)", empty_parts, quick=True),
    Case("near-boundaries", "2 × 24 MiB of near boundaries", near_boundaries),
    Case("part-headers", "headers of parts: 30 MiB in one, 1,000,000", long_part_header),
    Case("tiny-chunks", "2 × 3,000,000 chunks of one byte", tiny_chunks),
    Case("odd-json", "JSON at its edges", odd_json, clips=1, quick=True),
    Case("odd-options", "options at their edges", odd_options, clips=1, quick=True, spoils=True),
    Case("large-text", "10 MB where a sentence is meant", large_prompt),
    Case("packed-body", "gzip bodies of 1 GiB", packed_body),
    Case("event-streams", "1,200 event streams of one key", event_streams, spoils=True),
    Case("long-polls", "1,200 requests with wait_s=60 of one key", long_polls, spoils=True),
    Case("abandoned-streams", "1,200 event streams left behind", abandoned_streams, spoils=True),
    Case("stalled-uploads", "300 uploads that stop a byte short", stalled_uploads),
    Case("pipelined", "40,000 pipelined requests, no answer read", pipelined, spoils=True),
    Case("websockets", "500 WebSocket upgrades", websockets),
)
