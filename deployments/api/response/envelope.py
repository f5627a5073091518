"""Successful responses, and the dependencies of the routes: the services, the task's id, the documented statuses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from pydantic import WithJsonSchema

from deployments.api.concurrency.event_loop import FairSemaphore
from deployments.api.request.caller import client_name, client_of
from deployments.api.response.large_json import SpoolResponse, record_pieces, spooled
from deployments.api.response.request_echo import request_params, request_url
from deployments.api.response.schemas import AnyEnvelope, EmptyEnvelope, ErrorBody, Schema
from deployments.api.response.task_record import task_record
from deployments.api.services import Services, services_for
from pipeline.domain.tasks.client import Client
from pipeline.domain.tasks.task import Stage, Task
from pipeline.errors import InvalidValue, TaskNotFound

MAX_ID = 2**63 - 1
"""Largest integer of the database; no task has a larger id."""

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")


def envelope(request: Request, data: Schema, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return ``data`` in the task API's envelope, serialised directly by pydantic."""
    body = AnyEnvelope(code=status, router=request_url(request), params=request_params(request), data=data)
    return Response(body.model_dump_json(), status, headers=dict(headers or {}), media_type="application/json")


def envelope_pieces(request: Request, data: Iterator[bytes], status: int = 200) -> Iterator[bytes]:
    """Yield the envelope around data that comes in pieces of JSON."""
    body = EmptyEnvelope(code=status, router=request_url(request), params=request_params(request), data=None)
    head, tail = body.model_dump_json().encode().rsplit(b"null", 1)  # data is the last field
    yield head
    yield from data
    yield tail


async def record_response(request: Request, services: Services, task: Task, status: int = 200) -> Response:
    """Return a task's record in an envelope. Its transcript, if it has one, is read here.

    Since a transcript may cover hours, only a few are read and serialised at the same time, for clients in rotation.
    """
    prefix = base_url(request, services)
    if not may_have_result(task):
        return envelope(request, task_record(task, prefix), status)
    async with transcript_slots(request).hold(client_name(request)):
        task = await services.store.get(task.id, include_result=True)
        pieces = record_pieces(task_record(replace(task, result=None), prefix), task.result)
        spool = await spooled(services.workers, envelope_pieces(request, pieces, status))
    return SpoolResponse(spool, "application/json", status)


def may_have_result(task: Task) -> bool:
    """Return whether the task may have a transcript: it is stored before the summary, and a cancel keeps it."""
    return task.status.finished or task.stage is Stage.SUMMARIZING


def transcript_slots(request: Request) -> FairSemaphore:
    """Return the semaphore that limits how many transcripts are read and serialised at the same time."""
    semaphore = request.app.state.transcript_slots
    assert isinstance(semaphore, FairSemaphore)  # noqa: S101 (set by attach)
    return semaphore


def base_url(request: Request, services: Services) -> str:
    """Return the prefix of links: the configured URL, else only the path that the application is mounted at.

    The caller's ``Host`` header is never used, since anyone can set it.
    """
    return services.settings.http.public_url or str(request.scope.get("root_path", ""))


async def _services(request: Request) -> Services:
    """Return the services with the store limited to the caller's tasks."""
    services = request.app.state.services
    assert isinstance(services, Services)  # noqa: S101 (set by build_api)
    return services_for(services, client_of(request))


async def _client(request: Request) -> Client | None:
    return client_of(request)


async def _task_id(
    task_id: Annotated[str, WithJsonSchema({"type": "integer", "examples": [1]}), Query(description="The task's id.")],
) -> int:
    """Parse a task's id, within the range of the database's integers."""
    text = task_id.strip()
    if not _WHOLE_NUMBER.fullmatch(text):
        raise InvalidValue("task_id must be a whole number.", "task_id")
    if len(text) > len(str(MAX_ID)) or not 0 < int(text) <= MAX_ID:
        raise TaskNotFound("There is no task of that id.")
    return int(text)


ServicesDep = Annotated[Services, Depends(_services)]
ClientDep = Annotated[Client | None, Depends(_client)]
"""The client of a request; ``None`` if the request needs no key. New tasks belong to this client."""
TaskId = Annotated[int, Depends(_task_id)]

_STATUS_TEXTS = {
    400: "Contradictory, missing or malformed input",
    401: "A missing or unknown key; only if the service has keys",
    403: "The key lacks the necessary scope",
    404: "No such task",
    408: "The body arrived too slowly",
    409: "Not possible in the task's state, or the idempotency key was used for another request",
    412: "An unsupported version of tus; see `Tus-Version`",
    413: "Too large; the message names both sizes",
    414: "The URL is too long: send long options, such as `initial_prompt`, as form fields",
    415: "An unsupported content type or content encoding; see `Accept-Encoding`",
    422: "An invalid value; the message and `errors` name the fields",
    429: "The client has reached a limit: its rate, running requests, queued tasks or audio minutes; see `Retry-After`",
    431: "Too many headers, or too large ones",
    460: "The bytes do not match the checksum sent with them",
    500: "A defect of the service",
    502: "The server of the recording or of the language model failed",
    503: "Temporarily unavailable: the queue or the server is full, the service is starting, the database does not "
    "respond, or no language model accepts requests; see `Retry-After`",
    504: "The server of the recording or of the language model took too long",
}


def header(name: str, description: str) -> dict[str, Any]:
    """Describe a response header for OpenAPI."""
    return {"headers": {name: {"description": description, "required": True, "schema": {"type": "string"}}}}


FILE_NAME = header("Content-Disposition", "The suggested name of the file.")


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe error statuses for OpenAPI, all in the task API's shape."""
    return error_responses_of(ErrorBody, *statuses)


def error_responses_of(shape: type[Schema], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe error statuses for OpenAPI, all in one shape."""
    of_any_route = (401, 403, 414, 429, 431, 500, 503)
    return {status: {"model": shape, "description": _STATUS_TEXTS[status]} for status in (*statuses, *of_any_route)}
