"""Clients that mean no good, or only behave as if: each is refused, and the next request is served."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from tests.serve.service import UPLOAD_IDLE_TIMEOUT_S, Service
from tests.support import recordings

CREATE = "/api/whisper/tasks/create"
UPLOADS = "/api/whisper/uploads"
TUS = {"Tus-Resumable": "1.0.0"}
SILENCE = recordings.encode(np.zeros(16_000, np.int16), "wav")


@pytest.fixture(autouse=True)
def _leaves_nothing(service: Service, eventually: Callable[[Callable[[], bool]], None]) -> object:
    yield
    assert service.client.get("/api/health/check").json() == {"status": "ok"}
    eventually(lambda: service.media_files() == [])


def raw(service: Service, *blocks: bytes) -> socket.socket:
    """Open a connection and send these bytes as they are."""
    address = service.client.base_url
    connection = socket.create_connection((address.host, address.port or 80), timeout=20 * UPLOAD_IDLE_TIMEOUT_S)
    for block in blocks:
        connection.sendall(block)
    return connection


FORM = (
    b"POST /api/whisper/tasks/create HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 900000\r\n"
    b"Content-Type: multipart/form-data; boundary=e\r\n\r\n"
    b'--e\r\nContent-Disposition: form-data; name="file_upload"; filename="../../../etc/passwd"\r\n\r\nsome'
)


def test_clients_that_stop_in_the_middle_are_answered(service: Service) -> None:
    connections = [raw(service, FORM) for _ in range(8)]
    for connection in connections:
        with connection:
            assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_clients_that_vanish_leave_nothing(service: Service) -> None:
    for _ in range(8):
        raw(service, FORM).close()


def test_uploads_at_once(service: Service) -> None:
    with ThreadPoolExecutor(32) as pool:
        records = list(pool.map(lambda _: service.create(SILENCE), range(32)))
    assert len({record["id"] for record in records}) == 32
    for record in records:
        assert service.end_of(record["id"]).status_code == 200


def test_headers_of_the_caller_build_nothing(service: Service) -> None:
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    name = "../../a\r\nSet-Cookie: x=1"
    answer = service.client.post(CREATE, files={"file_upload": (name, SILENCE)}, headers=headers)
    record = answer.json()["data"]
    assert answer.headers["location"].startswith("/api/whisper/tasks/result?")
    assert "evil" not in record["output_url"]
    assert not set(record["file_name"]) & set("/\r\n")
    assert "set-cookie" not in answer.headers
    assert service.end_of(record["id"]).status_code == 200


@pytest.mark.parametrize("path", ["/docs/assets/..%2f..%2f..%2fetc%2fpasswd", "/docs/assets/%2e%2e/%2e%2e/app.py"])
def test_paths_lead_nowhere_else(service: Service, path: str) -> None:
    assert service.client.get(path).status_code == 404


def test_a_body_without_end_where_none_is_wanted(service: Service) -> None:
    answer = service.client.post("/api/whisper/tasks/query", content=b"[" * 2_000_000)
    assert (answer.status_code, answer.json()["detail"]["error"]) == (413, "upload_too_large")


def test_offsets_that_do_not_fit(service: Service) -> None:
    begun = service.client.post(UPLOADS, headers=TUS | {"Upload-Length": "1000"})
    address, body = begun.headers["location"], TUS | {"Content-Type": "application/offset+octet-stream"}
    codes: dict[str, int] = {}
    for offset in ("1", "-1", "x", "999999999999"):
        answer = service.client.patch(address, headers=body | {"Upload-Offset": offset}, content=b"abc")
        codes[offset] = answer.status_code
    assert codes == {"1": 409, "-1": 422, "x": 422, "999999999999": 409}
    over = service.client.patch(address, headers=body | {"Upload-Offset": "0"}, content=b"x" * 1001)
    assert over.status_code == 413
    assert service.client.delete(address, headers=TUS).status_code == 204


def test_of_two_at_the_same_offset_one_is_taken(service: Service) -> None:
    address = service.client.post(UPLOADS, headers=TUS | {"Upload-Length": "2000"}).headers["location"]
    body = TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}

    def add(letter: bytes) -> httpx.Response:
        return service.client.patch(address, headers=body, content=letter * 1000)

    with ThreadPoolExecutor(4) as pool:
        codes = sorted(answer.status_code for answer in pool.map(add, (b"a", b"b", b"c", b"d")))
    assert codes == [204, 409, 409, 409]
    assert service.client.head(address, headers=TUS).headers["upload-offset"] == "1000"
    assert service.client.delete(address, headers=TUS).status_code == 204
