"""Authentication by key: access, visibility of tasks, and rate limits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from hmac import compare_digest
from typing import Any

import httpx
import numpy as np
import pytest
from limits.errors import StorageError
from pydantic import ValidationError

from deployments.api.application import build_api
from deployments.api.middleware import authentication
from deployments.api.middleware.authentication import Authenticator, is_open, scope_needed
from pipeline.domain.tasks.client import Scope
from pipeline.domain.tasks.task import NewTask, Status
from pipeline.errors import ConfigurationError
from pipeline.settings import AuthSettings
from tests.support.recordings import encode, tone, wav
from tests.unit.deployments.api.world import World, client_of, detail, middleware_argument

TASKS = "/api/whisper/tasks"
CREATE = f"{TASKS}/create"
EXTRACT = "/api/whisper/extract_audio"
UPLOADS = "/api/whisper/uploads"
TUS = {"Tus-Resumable": "1.0.0"}


def key(name: str, scopes: tuple[str, ...] = ("read", "write"), **limits: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(f"key of {name}".encode()).hexdigest(), "scopes": scopes, **limits}


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key of {name}"}


KEYS = (key("ann"), key("bob"), key("reader", ("read",)), key("writer", ("write",)), key("root", ("admin",)))


def guarded(world: World, *keys: dict[str, Any], **settings: Any) -> httpx.AsyncClient:
    return client_of(world.api(auth={"keys": keys or KEYS}, **settings))


async def upload(client: httpx.AsyncClient, name: str, content: bytes = b"audio", **more: Any) -> httpx.Response:
    return await client.post(CREATE, files={"file_upload": ("a.mp3", content)}, headers=bearer(name), **more)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "key of ann"},
        {"Authorization": "Basic a2V5IG9mIGFubg=="},
        {"Authorization": "Bearer key of ANN"},
        {"Authorization": "Bearer key of an"},
        {"Authorization": "Bearer key of annn"},
        {"Authorization": f"Bearer {KEYS[0]['sha256']}"},
        {"Authorization": "Bearer \xff\xfe"},
        {"Authorization": "Bearer " + "x" * 10_000},
        {"X-Api-Key": "key of ann"},
    ],
)
async def test_without_a_known_key_nobody_gets_in(world: World, headers: dict[str, str]) -> None:
    await world.queued()
    async with guarded(world) as client:
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        answer = await client.get(f"{TASKS}/result", params={"task_id": 1}, headers=encoded)
        assert answer.headers["www-authenticate"] == "Bearer"
        detail(answer, 401, "not_authenticated")


async def test_every_route_is_shut_but_the_documentation_and_health(world: World) -> None:
    app = world.api(auth={"keys": KEYS})
    async with client_of(app) as client:
        for path, methods in app.openapi()["paths"].items():
            for method in methods:
                answer = await client.request(method.upper(), path.replace("{upload_id}", "a" * 32))
                is_shut = answer.status_code == 401
                assert is_shut != (path.startswith("/api/health/") or method == "options"), (method, path)
        for path in ("/api/nothing", "/v1/models", "/docsx", "/docs/x", "/api/healthy", "/api/health"):
            assert (await client.get(path)).status_code == 401, path
        await world.completed()
        for climb in ("/docs/assets/%2e%2e/%2e%2e", "/api/health/%2e%2e/..%2f.."):
            assert (await client.get(f"{climb}/api/whisper/tasks/result?task_id=1")).status_code == 404
        for path in ("/docs", "/openapi.json", "/docs/assets/swagger-ui.css", "/api/health/check"):
            assert (await client.get(path)).status_code == 200, path


async def test_without_keys_everybody_gets_in(client: httpx.AsyncClient) -> None:
    assert (await client.post(f"{TASKS}/query", json={}, headers=bearer("anybody"))).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", " Bearer "])
async def test_the_scheme_is_written_as_one_likes(world: World, scheme: str) -> None:
    async with guarded(world) as client:
        headers = {"Authorization": f"{scheme} key of ann"}
        assert (await client.post(f"{TASKS}/query", json={}, headers=headers)).status_code == 200


def test_hashes_are_compared_in_constant_time_and_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def watched(first: bytes, second: bytes) -> bool:
        compared.append(second)
        return compare_digest(first, second)

    monkeypatch.setattr(authentication, "compare_digest", watched)
    ring = authentication.KeyRing(AuthSettings.model_validate({"keys": KEYS}))
    for presented in ("key of ann", "key of root", "nobody's"):
        compared.clear()
        found = ring.find(presented)
        assert [digest.hex() for digest in compared] == [entry["sha256"] for entry in KEYS]
        assert (found and f"key of {found.client.name}") == (None if presented == "nobody's" else presented)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", f"{TASKS}/result", Scope.READ),
        ("HEAD", f"{UPLOADS}/x", Scope.READ),
        ("POST", f"{TASKS}/query", Scope.READ),
        ("GET", "/v1/models", Scope.READ),
        ("POST", "/v1/audio/transcriptions", Scope.WRITE),
        ("POST", CREATE, Scope.WRITE),
        ("POST", UPLOADS, Scope.WRITE),
        ("PATCH", f"{UPLOADS}/x", Scope.WRITE),
        ("DELETE", f"{TASKS}/delete", Scope.WRITE),
        ("POST", "/api/some/new/route", Scope.WRITE),
        ("PUT", f"{TASKS}/query", Scope.WRITE),
    ],
)
def test_reading_takes_one_scope_and_all_else_the_other(method: str, path: str, scope: Scope) -> None:
    assert scope_needed(method, path) is scope
    assert not is_open(method, path)


async def test_a_scope_that_is_missing_is_named(world: World) -> None:
    async with guarded(world) as client:
        answer = await upload(client, "reader")
        assert "the scope write" in detail(answer, 403, "scope_missing")["message"]
        answer = await client.post(f"{TASKS}/query", json={}, headers=bearer("writer"))
        assert "the scope read" in detail(answer, 403, "scope_missing")["message"]
        assert (await upload(client, "writer")).status_code == 200
        assert (await client.post(f"{TASKS}/query", json={}, headers=bearer("reader"))).status_code == 200
    assert world.media.keys == {f"{(await world.store.get(1)).media_prefix}/source"}


def _task_calls() -> dict[str, Callable[[httpx.AsyncClient, int, str], Any]]:
    def call(method: str, path: str) -> Callable[[httpx.AsyncClient, int, str], Any]:
        return lambda client, task_id, name: client.request(
            method, path, params={"task_id": task_id}, headers=bearer(name)
        )

    return {
        "result": call("GET", f"{TASKS}/result"),
        "subtitles": call("GET", "/api/whisper/generate_subtitles"),
        "cancel": call("POST", f"{TASKS}/cancel"),
        "retry": call("POST", f"{TASKS}/retry"),
        "delete": call("DELETE", f"{TASKS}/delete"),
    }


@pytest.mark.parametrize("verb", _task_calls())
@pytest.mark.parametrize("owner", ["ann", None])
async def test_anothers_task_does_not_exist(world: World, verb: str, owner: str | None) -> None:
    task = await world.completed(client=owner, media_prefix="theirs")
    async with guarded(world) as client:
        detail(await _task_calls()[verb](client, task.id, "bob"), 404, "task_not_found")
    assert (await world.store.get(task.id)).status == task.status
    assert world.dispatcher.cancelled == []


async def test_a_task_belongs_to_whom_it_was_made_by(world: World) -> None:
    async with guarded(world) as client:
        task_id = (await upload(client, "ann")).json()["data"]["id"]
        await upload(client, "bob")
        for name, found in {"ann": [1], "bob": [2], "root": [1, 2], "reader": []}.items():
            body = {"status": None, "has_result": None, "has_error": None, "priority": None}
            answer = await client.post(f"{TASKS}/query", json=body, headers=bearer(name))
            assert [task["id"] for task in answer.json()["data"]["tasks"]] == found, name
        for verb in ("result", "cancel"):
            assert (await _task_calls()[verb](client, task_id, "ann")).status_code in (200, 202)
        assert (await _task_calls()["retry"](client, task_id, "root")).status_code == 200
        assert (await _task_calls()["delete"](client, task_id, "root")).status_code == 200
    assert (await world.store.get(2)).client == "bob"


async def test_an_idempotency_key_is_each_clients_own(world: World) -> None:
    async with guarded(world) as client:
        ids = []
        for name in ("ann", "bob", "ann"):
            headers = bearer(name) | {"Idempotency-Key": "same"}
            answer = await client.post(CREATE, files={"file_upload": ("a.mp3", b"audio")}, headers=headers)
            ids.append(answer.json()["data"]["id"])
    assert ids == [1, 2, 1]


async def test_a_resumable_upload_is_its_clients_own(world: World) -> None:
    async with guarded(world) as client:
        begun = await client.post(UPLOADS, headers=TUS | bearer("ann") | {"Upload-Length": "5"})
        address = begun.headers["location"]
        body = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        for method, more in (("HEAD", {}), ("PATCH", body), ("DELETE", {})):
            answer = await client.request(method, address, headers=TUS | bearer("bob") | more)
            assert answer.status_code == 404
        patched = await client.patch(address, headers=TUS | bearer("ann") | body, content=b"audio")
        assert patched.status_code == 204
        query = {"upload_id": address.rpartition("/")[2]}
        detail(await client.post(CREATE, params=query, headers=bearer("bob")), 404, "upload_not_found")
        assert (await client.post(CREATE, params=query, headers=bearer("ann"))).status_code == 200
    assert (await world.store.get(1)).client == "ann"


async def test_too_many_requests_are_refused_by_key(world: World) -> None:
    async with guarded(world, key("ann", rate="3/hour"), key("bob", rate="1000/hour"), key("free")) as client:
        codes = [(await client.post(f"{TASKS}/query", json={}, headers=bearer("ann"))).status_code for _ in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        answer = await client.post(f"{TASKS}/query", json={}, headers=bearer("ann"))
        assert "3 per 1 hour" in detail(answer, 429, "too_many_requests")["message"]
        assert 0 < int(answer.headers["retry-after"]) <= 3600
        for name in ("bob", "free"):
            assert (await client.post(f"{TASKS}/query", json={}, headers=bearer(name))).status_code == 200
        assert (await client.get("/api/health/check", headers=bearer("ann"))).status_code == 200


async def test_a_holder_may_have_two_keys_while_it_changes_them(world: World) -> None:
    old, new = key("old")["sha256"], key("new")["sha256"]
    async with guarded(world, key("ann", rate="3/hour") | {"sha256": [old, new]}) as client:
        made = (await upload(client, "old")).json()["data"]["id"]
        seen = await client.get(f"{TASKS}/result", params={"task_id": made}, headers=bearer("new"))
        answers = [(await client.get(f"{TASKS}/result", headers=bearer(name))).status_code for name in ("old", "new")]
    assert seen.status_code == 202
    assert answers == [422, 429]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ([key("ann"), key("ann") | {"sha256": "0" * 64}], "a list of two"),
        ([key("ann"), key("bob") | {"sha256": key("ann")["sha256"]}], "there twice"),
        ([key("ann") | {"sha256": ["0" * 64, "0" * 64]}], "there twice"),
        ([key("ann") | {"sha256": []}], "at least 1"),
        ([key("ann") | {"sha256": ["0" * 63]}], "pattern"),
    ],
)
def test_keys_that_can_not_be_told_apart_are_refused(keys: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        AuthSettings.model_validate({"keys": keys})


async def test_a_rate_for_all_is_each_keys_own(world: World) -> None:
    app = world.api(auth={"keys": [key("ann"), key("bob"), key("vip", rate="9/hour")], "rate": "1/hour"})
    async with client_of(app) as client:
        for name, codes in {"ann": [200, 429], "bob": [200, 429], "vip": [200, 200]}.items():
            made = [await client.post(f"{TASKS}/query", json={}, headers=bearer(name)) for _ in codes]
            assert [answer.status_code for answer in made] == codes


@pytest.mark.parametrize("url", ["memory://", "nonsense://x", "async+redis://localhost"])
def test_a_storage_that_can_not_count_ends_the_start(url: str) -> None:
    with pytest.raises(ConfigurationError, match="rate_storage"):
        Authenticator(AuthSettings.model_validate({"keys": KEYS, "rate_storage": url}))


async def test_a_counter_that_does_not_answer_lets_nobody_through_uncounted(world: World) -> None:
    app = world.api(auth={"keys": [key("ann", rate="9/hour")]})

    async def broken(*_: object, **__: object) -> bool:
        raise StorageError(ConnectionError("refused"))

    middleware_argument(app, authentication.AuthMiddleware, "authenticator")._limiter.hit = broken
    async with client_of(app) as client:
        detail(await client.post(f"{TASKS}/query", json={}, headers=bearer("ann")), 503, "unavailable")


async def test_queued_tasks_are_limited_before_and_after_the_upload(world: World) -> None:
    async with guarded(world, key("ann", max_queued_tasks=1), key("bob")) as client:
        assert (await upload(client, "ann")).status_code == 200
        refused = await upload(client, "ann")
        detail(refused, 429, "quota_exceeded")
        assert refused.headers["retry-after"] == "30"
        begun = await client.post(UPLOADS, headers=TUS | bearer("ann") | {"Upload-Length": "5"})
        detail(begun, 429, "quota_exceeded")
        assert (await upload(client, "bob")).status_code == 200
        await _task_calls()["cancel"](client, 1, "ann")
        assert (await upload(client, "ann")).status_code == 200
    assert len(world.media.keys) == 3


async def test_audio_is_limited_by_the_day(world: World) -> None:
    lease = await world.processing(client="ann")
    await world.store.update(lease, split_done=True, file_duration_s=120.0)
    async with guarded(world, key("ann", max_audio_minutes_per_day=2)) as client:
        refused = await upload(client, "ann")
        assert "2.0" in detail(refused, 429, "quota_exceeded")["message"]
        assert int(refused.headers["retry-after"]) == 86_400
        world.clock.advance(86_400)
        assert (await upload(client, "ann")).status_code == 200


async def test_the_key_is_not_in_the_answer(world: World) -> None:
    async with guarded(world) as client:
        for name in ("ann", "nobody"):
            answer = await client.get(f"{TASKS}/result", params={"task_id": 7}, headers=bearer(name))
            assert "key of" not in answer.text


async def test_a_service_below_a_prefix_is_as_shut(world: World) -> None:
    app = world.api(auth={"keys": KEYS})
    transport = httpx.ASGITransport(app, root_path="/speech")
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        assert (await client.get("/speech/api/health/check")).status_code == 200
        assert (await client.get("/speech/api/whisper/tasks/result?task_id=1")).status_code == 401
        assert (await client.post("/speech/api/whisper/tasks/query", headers=bearer("reader"))).status_code == 200


async def test_the_document_asks_for_a_key_where_there_are_keys(world: World) -> None:
    assert "securitySchemes" not in world.api().openapi().get("components", {})
    document = build_api(world.services(auth={"keys": KEYS})).openapi()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    shut = {path for path, methods in document["paths"].items() for each in methods.values() if each.get("security")}
    assert {"/api/whisper/tasks/create", UPLOADS} <= shut
    assert not any(path.startswith("/api/health") for path in shut)


def test_new_tasks_without_a_key_belong_to_nobody() -> None:
    assert NewTask(media_prefix="a").client is None


async def test_recordings_are_extracted_in_the_name_of_their_client(world: World) -> None:
    async with guarded(world) as client:
        content = wav(np.zeros(1600, np.float32))
        answer = await client.post(
            "/api/whisper/extract_audio", files={"file": ("a.wav", content)}, headers=bearer("ann")
        )
    assert answer.status_code == 200, answer.text
    assert world.extractor.clients == ["ann"]


async def test_a_retry_is_a_task_in_the_queue_like_any_other(world: World) -> None:
    async with guarded(world, key("ann", max_queued_tasks=1)) as client:
        for _ in range(2):
            made = await upload(client, "ann")
            await _task_calls()["cancel"](client, made.json()["data"]["id"], "ann")
        assert (await _task_calls()["retry"](client, 1, "ann")).status_code == 200
        refused = await _task_calls()["retry"](client, 2, "ann")
        detail(refused, 429, "quota_exceeded")
        assert refused.headers["retry-after"] == "30"
        assert (await world.store.get(2)).status is Status.CANCELLED


async def test_extracted_audio_counts_like_any_other(world: World) -> None:
    sound = {"file": ("tone.wav", encode(tone(4.0), "wav"))}
    async with guarded(world, key("ann", max_audio_minutes_per_day=3.5 / 60), key("bob")) as client:
        for name, codes in {"ann": [200, 429], "bob": [200, 200]}.items():
            answers = [await client.post(EXTRACT, files=sound, headers=bearer(name)) for _ in codes]
            assert [answer.status_code for answer in answers] == codes
        assert (await world.store.client_load("ann")).audio_s == pytest.approx(4.0, abs=0.1)
        detail(await upload(client, "ann"), 429, "quota_exceeded")
        assert world.extractor.places == 1
