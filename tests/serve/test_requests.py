"""Requests that proxy and server on the way let through: methods, slashes, packed bodies."""

from __future__ import annotations

import gzip

import pytest

from tests.serve.service import Service


@pytest.mark.parametrize("path", ["/", "/docs", "/metrics", "/v1/models", "/api/health/check", "/api/whisper/nothing"])
def test_head_is_get_without_the_body(service: Service, path: str) -> None:
    head, get = service.client.head(path), service.client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers.get("content-type") == get.headers.get("content-type")


def test_head_of_a_stream_ends(service: Service) -> None:
    task = service.create(b"no recording")
    head = service.client.head("/api/whisper/tasks/events", params={"task_id": task["id"]})
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("path", ["/v1/models/", "//v1/models", "/v1//models//", "///v1/models"])
def test_slashes_too_many(service: Service, path: str) -> None:
    answer = service.client.get(f"{str(service.client.base_url).rstrip('/')}{path}")
    assert (answer.status_code, answer.json()["object"]) == (200, "list")


def test_the_longest_prompt_fits_into_a_query_string(service: Service) -> None:
    prompt = "词" * 4000
    answer = service.client.post(
        "/api/whisper/tasks/create",
        params={"initial_prompt": prompt},
        files={"file_upload": ("a.wav", b"no recording")},
    )
    assert answer.status_code == 200, answer.text


def test_what_is_longer_is_refused_with_the_way_out(service: Service) -> None:
    answer = service.client.post("/api/whisper/tasks/create", params={"initial_prompt": "a" * 50_000})
    assert (answer.status_code, answer.json()["detail"]["error"]) == (414, "url_too_long")
    assert "as form fields" in answer.json()["detail"]["message"]


def test_options(service: Service) -> None:
    answer = service.client.options("/api/whisper/tasks/query/")
    assert (answer.status_code, answer.headers["allow"]) == (204, "POST, OPTIONS")


def test_a_packed_form(service: Service) -> None:
    form = b'--e\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\nno recording\r\n--e--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=e", "Content-Encoding": "gzip"}
    answer = service.client.post("/api/whisper/tasks/create/", content=gzip.compress(form), headers=headers)
    record = answer.json()["data"]
    assert (record["file_name"], record["file_size_bytes"]) == ("a.mp3", len(b"no recording"))


def test_a_bomb(service: Service) -> None:
    headers = {"Content-Encoding": "gzip"}
    answer = service.client.post("/api/whisper/tasks/query", content=gzip.compress(bytes(50_000_000)), headers=headers)
    assert (answer.status_code, answer.json()["detail"]["error"]) == (413, "upload_too_large")
