"""The tus protocol, one request at a time. Tests with real clients and sockets are in tests/e2e/test_uploads.py."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from tests.unit.deployments.api.world import World, client_of, detail

CREATE = "/api/whisper/tasks/create"
UPLOADS = "/api/whisper/uploads"
TUS = {"Tus-Resumable": "1.0.0"}
BODY = TUS | {"Content-Type": "application/offset+octet-stream"}


def b64(text: str | bytes) -> str:
    return b64encode(text.encode() if isinstance(text, str) else text).decode()


def checksum(algorithm: str, content: bytes) -> dict[str, str]:
    return {"Upload-Checksum": f"{algorithm} {b64(hashlib.new(algorithm, content).digest())}"}


async def begin(client: httpx.AsyncClient, size_bytes: int = 10, **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.post(UPLOADS, headers=TUS | {"Upload-Length": str(size_bytes)} | named)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


async def add(client: httpx.AsyncClient, address: str, offset: int, content: bytes, **headers: str) -> httpx.Response:
    return await client.patch(address, headers=BODY | {"Upload-Offset": str(offset)} | headers, content=content)


async def whole(client: httpx.AsyncClient, content: bytes = b"recording") -> str:
    address = await begin(client, len(content), Upload_Metadata=f"filename {b64('talk.mp3')}")
    assert (await add(client, address, 0, content)).status_code == 204
    return address.rpartition("/")[2]


async def test_what_is_spoken_is_said(client: httpx.AsyncClient) -> None:
    answer = await client.options(UPLOADS)
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-max-size"] == str(2 * 1024**3)
    assert set(answer.headers["tus-extension"].split(",")) >= {"creation", "termination", "checksum", "expiration"}
    assert answer.headers["tus-checksum-algorithm"] == "sha1,sha256,md5"


async def test_an_upload_in_pieces(client: httpx.AsyncClient, world: World) -> None:
    metadata = f"filename {b64('../Gespräch.m4a')},kind {b64('x')},empty"
    address = await begin(client, 10, Upload_Metadata=metadata)
    for offset, piece in ((0, b"abcd"), (4, b""), (4, b"efghij")):
        answer = await add(client, address, offset, piece)
        assert answer.status_code == 204
        assert answer.headers["upload-offset"] == str(offset + len(piece))
        assert answer.headers["tus-resumable"] == "1.0.0"
        assert answer.content == b""
    look = await client.head(address, headers=TUS)
    assert (look.headers["upload-offset"], look.headers["upload-length"]) == ("10", "10")
    assert look.headers["cache-control"] == "no-store"
    assert look.headers["upload-metadata"] == f"filename {b64('Gespräch.m4a')},kind {b64('x')},empty "
    assert (parsedate_to_datetime(look.headers["upload-expires"]) - world.clock.now()).total_seconds() > 86_000


async def test_the_first_bytes_may_come_along(client: httpx.AsyncClient) -> None:
    answer = await client.post(UPLOADS, headers=BODY | {"Upload-Length": "10"}, content=b"abc")
    assert (answer.status_code, answer.headers["upload-offset"]) == (201, "3")
    assert (await client.head(answer.headers["location"], headers=TUS)).headers["upload-offset"] == "3"


@pytest.mark.parametrize("version", [None, "0.2.2", "2.0.0", "1.0.0, 2.0.0"])
async def test_another_version_is_not_spoken(client: httpx.AsyncClient, version: str | None) -> None:
    address = await begin(client)
    headers = {} if version is None else {"Tus-Resumable": version}
    for method in ("POST", "HEAD", "PATCH", "DELETE"):
        answer = await client.request(method, UPLOADS if method == "POST" else address, headers=headers)
        assert (answer.status_code, answer.headers["tus-version"]) == (412, "1.0.0")
    detail(await client.patch(address, headers=headers), 412, "protocol_version_unsupported")


@pytest.mark.parametrize("offset", ["1", "10", "999999999999999"])
async def test_bytes_for_another_place_are_refused(client: httpx.AsyncClient, world: World, offset: str) -> None:
    address = await begin(client)
    answer = await client.patch(address, headers=BODY | {"Upload-Offset": offset}, content=b"abc")
    assert "at byte 0" in detail(answer, 409, "upload_state_conflict")["message"]
    assert world.media.keys == frozenset()


@pytest.mark.parametrize("offset", ["", "-1", "1.5", "0x10", "9" * 400, "٣", "NaN", " "])
async def test_offsets_that_can_not_be(client: httpx.AsyncClient, offset: str) -> None:
    address = await begin(client)
    answer = await client.patch(address, headers=[*BODY.items(), ("Upload-Offset", offset.encode())], content=b"abc")
    detail(answer, 422, "invalid_value")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upload-Length": "-1"},
        {"Upload-Length": "many"},
        {"Upload-Length": "9" * 16},
        {"Upload-Defer-Length": "1"},
        {"Upload-Length": "1", "Upload-Metadata": "filename not-base64!"},
        {"Upload-Length": "1", "Upload-Metadata": "a YQ==,a YQ=="},
        {"Upload-Length": "1", "Upload-Metadata": f"a {'YQ==' * 2000}"},
        {"Upload-Length": "1", "Upload-Checksum": "crc32 YQ=="},
        {"Upload-Length": "1", "Upload-Checksum": "sha1 !"},
    ],
)
async def test_uploads_that_can_not_be(client: httpx.AsyncClient, world: World, headers: dict[str, str]) -> None:
    detail(await client.post(UPLOADS, headers=TUS | headers), 422, "invalid_value")
    assert world.uploads._uploads == {}


async def test_too_large_is_refused_at_once(world: World) -> None:
    async with client_of(world.api(media={"max_upload_bytes": 100})) as client:
        answer = await client.post(UPLOADS, headers=TUS | {"Upload-Length": "101"})
        assert "101" in detail(answer, 413, "upload_too_large")["message"]
        address = await begin(client, 100)
        detail(await add(client, address, 0, b"x" * 101), 413, "upload_too_large")
        assert (await client.head(address, headers=TUS)).headers["upload-offset"] == "100"


async def test_a_body_of_another_type_is_not_taken(client: httpx.AsyncClient) -> None:
    address = await begin(client)
    answer = await client.patch(address, headers=TUS | {"Upload-Offset": "0"}, content=b"abc")
    detail(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
async def test_a_checksum_is_checked(client: httpx.AsyncClient, world: World, algorithm: str) -> None:
    address = await begin(client)
    wrong = await add(client, address, 0, b"abcde", **checksum(algorithm, b"abcdf"))
    detail(wrong, 460, "checksum_mismatch")
    assert world.media.keys == frozenset()
    assert (await add(client, address, 0, b"abcde", **checksum(algorithm, b"abcde"))).status_code == 204


@pytest.mark.parametrize("upload_id", ["a" * 32, "x", "A" * 32, "..%2f..%2fetc%2fpasswd", "%00", "a" * 3000])
async def test_uploads_that_do_not_exist(client: httpx.AsyncClient, upload_id: str) -> None:
    answer = await add(client, f"{UPLOADS}/{upload_id}", 0, b"abc")
    assert (answer.status_code, answer.json()["detail"]["error"] in ("upload_not_found", "not_found")) == (404, True)


async def test_an_upload_is_thrown_away(client: httpx.AsyncClient, world: World) -> None:
    address = await begin(client)
    await add(client, address, 0, b"abc")
    assert (await client.delete(address, headers=TUS)).status_code == 204
    assert world.media.keys == frozenset()
    assert (await client.head(address, headers=TUS)).status_code == 404


async def test_methods_may_be_sent_as_post(client: httpx.AsyncClient) -> None:
    address = await begin(client)
    headers = BODY | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    answer = await client.post(address, headers=headers, content=b"abc")
    assert (answer.status_code, answer.headers["upload-offset"]) == (204, "3")
    detail(await client.post(address, headers=TUS | {"X-HTTP-Method-Override": "PUT"}), 422, "invalid_value")
    assert (await client.post(address, headers=TUS | {"X-HTTP-Method-Override": "DELETE"})).status_code == 204


# --- from an upload to a task -----------------------------------------------------------------------------------------


async def test_an_upload_becomes_a_task(client: httpx.AsyncClient, world: World) -> None:
    upload_id = await whole(client)
    answer = await client.post(CREATE, params={"upload_id": upload_id, "language": "de", "priority": "high"})
    assert answer.status_code == 200, answer.text
    record = answer.json()["data"]
    assert (record["file_name"], record["file_size_bytes"], record["language"]) == ("talk.mp3", 9, "de")
    assert await world.media.read(record["file_path"]) == b"recording"
    assert world.media.keys == {record["file_path"]}
    assert world.dispatcher.wakes == 1


async def test_the_same_upload_is_the_same_task(client: httpx.AsyncClient, world: World) -> None:
    upload_id = await whole(client)
    asked: dict[str, Any] = {"params": {"upload_id": upload_id}, "data": {"language": "de"}}
    first, again = [(await client.post(CREATE, **asked)).json()["data"]["id"] for _ in range(2)]
    assert first == again
    other = await client.post(CREATE, params={"upload_id": upload_id, "language": "en"})
    assert "became task 1" in detail(other, 409, "idempotency_conflict")["message"]
    detail(await add(client, f"{UPLOADS}/{upload_id}", 9, b"x"), 409, "upload_state_conflict")
    assert await world.task_count() == 1


async def test_an_unfinished_upload_is_no_recording(client: httpx.AsyncClient, world: World) -> None:
    address = await begin(client)
    await add(client, address, 0, b"abc")
    answer = await client.post(CREATE, params={"upload_id": address.rpartition("/")[2]})
    assert "3 of 10 bytes" in detail(answer, 409, "upload_state_conflict")["message"]
    assert await world.task_count() == 0
    assert len(world.media.keys) == 1


async def test_an_empty_upload_is_no_recording(client: httpx.AsyncClient) -> None:
    address = await begin(client, 0)
    answer = await client.post(CREATE, params={"upload_id": address.rpartition("/")[2]})
    detail(answer, 400, "source_missing")


async def test_one_source_is_enough(client: httpx.AsyncClient) -> None:
    upload_id = await whole(client)
    answer = await client.post(CREATE, params={"upload_id": upload_id}, files={"file": ("a.mp3", b"audio")})
    detail(answer, 400, "source_conflict")
    answer = await client.post(CREATE, data={"upload_id": upload_id, "file_url": "https://example.org/a.mp3"})
    detail(answer, 400, "source_conflict")


async def test_what_expired_is_no_recording(client: httpx.AsyncClient, world: World) -> None:
    upload_id = await whole(client)
    world.clock.advance(86_401)
    detail(await client.post(CREATE, params={"upload_id": upload_id}), 404, "upload_not_found")
