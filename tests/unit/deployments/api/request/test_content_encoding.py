"""Compressed request bodies."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.api.middleware import body_limit
from deployments.api.request.content_encoding import BLOCK_BYTES, inflater_of
from pipeline.errors import RequestError
from tests.support.builders import blocks
from tests.support.thoroughness import thorough
from tests.unit.deployments.api.world import World, client_of, detail

TASKS = "/api/whisper/tasks"
CREATE = f"{TASKS}/create"
QUERY = f"{TASKS}/query"
UPLOADS = "/api/whisper/uploads"
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}

FORM = b'--e\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n%s\r\n--e--\r\n'
MULTIPART = {"Content-Type": "multipart/form-data; boundary=e"}


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("GZIP", gzip.compress),
    (" identity, gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("identity", bytes),
    ("", bytes),
]


def unpacked(encoding: str, pieces: Iterator[bytes]) -> bytes:
    inflater = inflater_of(encoding)
    assert inflater is not None
    content = b"".join(part for piece in pieces for part in inflater.feed(piece))
    inflater.finish()
    return content


def cut(data: bytes, size: int) -> Iterator[bytes]:
    yield from (data[at : at + size] for at in range(0, len(data), size))


@pytest.fixture(autouse=True)
def _nobody_waits_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit, "DRAIN_S", 0.01)


@given(st.binary(), st.integers(1, 20), st.sampled_from(["gzip", "deflate", "raw"]))
def test_it_comes_out_as_it_went_in_however_it_is_cut(data: bytes, size: int, kind: str) -> None:
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "raw": raw_deflate}[kind](data)
    assert unpacked("gzip" if kind == "gzip" else "deflate", cut(packed, size)) == data


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_members_and_padding(size: int) -> None:
    packed = gzip.compress(b"one ") + gzip.compress(b"two") + b"\0" * 100
    assert unpacked("gzip", cut(packed, size)) == b"one two"


def test_what_comes_out_at_once_is_bounded() -> None:
    inflater = inflater_of("gzip")
    assert inflater is not None
    sizes = [len(piece) for piece in inflater.feed(gzip.compress(bytes(10_000_000)))]
    assert (max(sizes), sum(sizes)) == (BLOCK_BYTES, 10_000_000)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"not gzip"),
        ("gzip", gzip.compress(b"audio", mtime=0)[:-1]),
        ("gzip", gzip.compress(b"audio", mtime=0)[:5]),
        ("gzip", gzip.compress(b"audio", mtime=0) + b"more"),
        ("gzip", gzip.compress(b"audio", mtime=0)[:-8] + b"\xff" * 8),
        ("gzip", zlib.compress(b"audio")),
        ("deflate", b"not deflated"),
        ("deflate", zlib.compress(b"audio")[:-1]),
        ("deflate", zlib.compress(b"audio") + b"more"),
        ("deflate", b"x"),
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
async def test_broken_ones_are_refused_in_a_sentence(world: World, encoding: str, body: bytes, size: int) -> None:
    with pytest.raises(RequestError):
        unpacked(encoding, cut(body, size))
    async with client_of(world.api()) as client:
        for path in (QUERY, "/api/chatgpt/summary", "/api/whisper/callback/test"):
            answer = await client.post(path, content=blocks(*cut(body, size)), headers={"Content-Encoding": encoding})
            assert encoding in detail(answer, 400, "bad_request")["message"]
        headers = {"Content-Encoding": encoding} | MULTIPART
        detail(await client.post(CREATE, content=blocks(*cut(body, size)), headers=headers), 400, "bad_request")
    assert (await world.task_count(), world.media.keys) == (0, frozenset())


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip, br", "aes128gcm", "x" * 5000])
async def test_others_are_named_what_is_taken(client: httpx.AsyncClient, encoding: str) -> None:
    for path in (QUERY, CREATE, "/v1/audio/transcriptions"):
        answer = await client.post(path, content=b"{}", headers={"Content-Encoding": encoding})
        assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip, deflate")
    detail(await client.post(QUERY, content=b"{}", headers={"Content-Encoding": encoding}), 415,
           "unsupported_content_encoding")  # fmt: skip
    assert (await client.get("/v1/models", headers={"Content-Encoding": encoding})).status_code == 200


@pytest.mark.parametrize(("encoding", "pack"), PACKERS)
async def test_every_kind_of_body(client: httpx.AsyncClient, world: World, encoding: str, pack: Any) -> None:
    packed = {"Content-Encoding": encoding}
    await world.completed()
    found = await client.post(QUERY, content=pack(b'{"limit": 1}'), headers=packed)
    assert found.json()["params"]["limit"] == 1
    echoed = await client.post("/api/whisper/callback/test", content=pack(b'{"a": 1}'), headers=packed)
    assert echoed.json()["data"]["callback_data"] == {"a": 1}
    recording = random.Random(0).randbytes(300_000)
    created = await client.post(CREATE, content=pack(FORM % recording), headers=packed | MULTIPART)
    assert await world.media.read(created.json()["data"]["file_path"]) == recording
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    linked = await client.post("/api/tiktok/video_task", content=pack(b"language=de"), headers=packed | form)
    assert "send it as url" in detail(linked, 400, "source_missing")["message"]
    nothing = await client.post(QUERY, content=b"", headers=packed)
    assert nothing.status_code == 200


async def test_a_resumable_upload_counts_what_was_meant(client: httpx.AsyncClient) -> None:
    begun = await client.post(
        UPLOADS,
        content=gzip.compress(b"first "),
        headers=TUS | {"Upload-Length": "11", "Content-Encoding": "gzip"},
    )
    assert (begun.status_code, begun.headers["upload-offset"]) == (201, "6")
    added = await client.patch(
        begun.headers["location"],
        content=zlib.compress(b"then."),
        headers=TUS | {"Upload-Offset": "6", "Content-Encoding": "deflate"},
    )
    assert (added.status_code, added.headers["upload-offset"]) == (204, "11")


async def test_a_bomb_is_stopped_while_it_unpacks(world: World) -> None:
    bomb = gzip.compress(bytes(200_000_000 if thorough() else 20_000_000), compresslevel=1)
    app = world.api(media={"max_upload_bytes": 100_000})
    async with client_of(app) as client:
        packed = {"Content-Encoding": "gzip"}
        as_json = await client.post(QUERY, content=bomb, headers=packed)
        assert "65,536" in detail(as_json, 413, "upload_too_large")["message"]
        form = (FORM % b"@").partition(b"@")
        head, tail = gzip.compress(form[0]), gzip.compress(form[2])
        upload = await client.post(CREATE, content=head + bomb + tail, headers=packed | MULTIPART)
        assert "100,000" in detail(upload, 413, "upload_too_large")["message"]
        assert world.media.keys == frozenset()
        tus = await client.post(UPLOADS, content=bomb, headers=TUS | packed | {"Upload-Length": "100"})
        assert tus.status_code == 413


async def test_a_bomb_is_not_unpacked_further_than_the_limit(world: World) -> None:
    seen = 0
    member = gzip.compress(bytes(1_000_000))

    async def endless() -> AsyncIterator[bytes]:
        nonlocal seen
        while True:
            seen += 1
            yield member
            await asyncio.sleep(0)

    async with client_of(world.api()) as client:
        answer = await client.post(QUERY, content=endless(), headers={"Content-Encoding": "gzip"})
    detail(answer, 413, "upload_too_large")
    assert seen * len(member) < body_limit.DRAIN_BYTES + 1_000_000


async def test_the_size_that_is_announced_is_that_of_the_packed_body(client: httpx.AsyncClient) -> None:
    body = gzip.compress(json.dumps({"limit": 3, "platform": "p" * 150}).encode())
    headers = {"Content-Encoding": "gzip", "Content-Length": str(len(body))}
    assert (await client.post(QUERY, content=body, headers=headers)).status_code == 200
