from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from starlette.responses import StreamingResponse

from deployments.api.application import build_api
from deployments.api.response.problems import STATUSES, status_of, status_of_code
from pipeline import errors
from tests.unit.deployments.api.world import World, client_of, detail


def below(error: type[errors.MurmurationError]) -> Iterator[type[errors.MurmurationError]]:
    yield error
    for child in error.__subclasses__():
        yield from below(child)


def test_every_error_has_a_status_and_a_code_of_its_own() -> None:
    tree = [error for error in below(errors.MurmurationError) if error.__module__ == errors.__name__]
    assert len({error.code for error in tree}) == len(tree)
    for error in tree:
        assert status_of(error) == status_of_code(error.code)
        if issubclass(error, errors.RequestError):
            assert 400 <= status_of(error) < 500
    assert all(issubclass(error, errors.MurmurationError) for error in STATUSES)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.SourceConflict, 400),
        (errors.TaskNotFound, 404),
        (errors.IdempotencyConflict, 409),
        (errors.UploadTooLarge, 413),
        (errors.UnsupportedMediaType, 415),
        (errors.UnknownOption, 422),
        (errors.UrlNotAllowed, 422),
        (errors.NoAudioStream, 422),
        (errors.DecodingFailed, 500),
        (errors.SourceUnreachable, 502),
        (errors.QueueFull, 503),
        (errors.SourceTimeout, 504),
        (errors.LlmUnreachable, 502),
        (errors.LlmTimeout, 504),
        (errors.LlmNotConfigured, 503),
        (errors.NothingSaid, 422),
    ],
)
def test_statuses(error: type[errors.MurmurationError], status: int) -> None:
    assert status_of(error) == status


def test_a_code_of_another_version_is_our_defect() -> None:
    assert status_of_code("what_is_this") == 500


async def test_unknown_routes_and_methods(client: httpx.AsyncClient) -> None:
    assert "/nowhere" in detail(await client.get("/nowhere"), 404, "not_found")["message"]
    answer = await client.put("/api/whisper/tasks/create")
    detail(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    detail(await client.get("/docs/assets/nowhere.js"), 404, "not_found")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("It failed", "It failed."),
        ("It failed..", "It failed."),
        ("Did you mean x?.", "Did you mean x?"),
        ("Did you mean x?", "Did you mean x?"),
        ("Use en (English)", "Use en (English)."),
    ],
)
async def test_every_message_ends_with_one_mark(world: World, message: str, shown: str) -> None:
    await world.failed("media_undecodable", message)

    async def refuse() -> None:
        raise errors.DatabaseUnavailable(message)

    world.ask_engine = refuse  # type: ignore[method-assign, assignment]
    async with client_of(world.api()) as client:
        failed = await client.get("/api/whisper/tasks/result?task_id=1")
        assert detail(failed, 422, "media_undecodable")["message"] == shown
        assert (await client.get("/v1/models")).json()["error"]["message"] == shown


async def test_a_defect_is_logged_once_and_not_explained_to_the_client(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> None:
        raise RuntimeError("secret path /srv/x")

    world.store.ping = broken  # type: ignore[method-assign]
    async with client_of(world.api()) as client:
        answer = await client.get("/api/health/ready")
    detail(answer, 500, "internal_error")
    assert "secret" not in answer.text
    [entry] = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert entry.exc_info is not None
    assert "/api/health/ready" in entry.getMessage()


async def test_an_error_of_ours_that_is_a_defect_is_logged_too(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise errors.LeaseLost("The lease of task 1 was lost.")

    world.store.ping = broken  # type: ignore[method-assign]
    async with client_of(world.api()) as client:
        detail(await client.get("/api/health/ready"), 500, "internal_error")
    assert len(caplog.records) == 1


async def test_a_defect_in_mid_answer_breaks_the_connection(world: World) -> None:
    async def half() -> StreamingResponse:
        async def content() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("broken")

        return StreamingResponse(content())

    api = build_api(world.services())
    api.add_api_route("/half", half)
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        with pytest.raises(RuntimeError, match="broken"):
            await client.get("/half")


async def test_answers_repeat_neither_secrets_nor_megabytes(client: httpx.AsyncClient) -> None:
    secret = {"api_key": "hunter2", "platform": "p" * 3000}
    body = detail(await client.get("/nowhere", params=secret), 404, "not_found")
    assert body["params"]["api_key"] == "***"
    assert "hunter2" not in body["router"]
    assert len(body["params"]["platform"]) < 600
    assert len(body["router"]) < 2100
