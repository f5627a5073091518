"""Success as an answer, and what the routes share: the task's id, the services, the documentation of statuses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from pydantic import WithJsonSchema

from deployments.api.concurrency.event_loop import FairSemaphore
from deployments.api.middleware.admission import client_name
from deployments.api.middleware.auth import client_of, services_for
from deployments.api.response.large_json import SpoolResponse, record_pieces, spooled
from deployments.api.response.request_echo import request_params, request_url
from deployments.api.response.schemas import AnyEnvelope, EmptyEnvelope, ErrorBody, Schema, record
from deployments.api.services import Services
from pipeline.domain.tasks.client import Client
from pipeline.domain.tasks.task import Stage, Task
from pipeline.errors import InvalidValue, TaskNotFound

MAX_ID = 2**63 - 1
"""What a database's integer holds; a task beyond it can't exist."""

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")


def answer(request: Request, data: Schema, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The envelope around ``data``, rendered without a detour through Python's JSON."""
    envelope = AnyEnvelope(code=status, router=request_url(request), params=request_params(request), data=data)
    return Response(envelope.model_dump_json(), status, headers=dict(headers or {}), media_type="application/json")


def envelope_pieces(request: Request, data: Iterator[bytes], status: int = 200) -> Iterator[bytes]:
    """Yield the envelope around data that comes in pieces, as JSON."""
    envelope = EmptyEnvelope(code=status, router=request_url(request), params=request_params(request), data=None)
    head, tail = envelope.model_dump_json().encode().rsplit(b"null", 1)  # data comes last
    yield head
    yield from data
    yield tail


async def record_response(request: Request, services: Services, task: Task, status: int = 200) -> Response:
    """Return a task's record as an answer; with its transcript, if it has one, which is read here.

    A transcript may be of hours: few are read and written out at the same time, each client in turn.
    """
    prefix = base_url(request, services)
    if not may_have_result(task):
        return answer(request, record(task, prefix), status)
    async with results_gate(request).one(client_name(request)):
        task = await services.store.get(task.id, include_result=True)
        pieces = record_pieces(record(replace(task, result=None), prefix), task.result)
        spool = await spooled(services.workers, envelope_pieces(request, pieces, status))
    return SpoolResponse(spool, "application/json", status)


def may_have_result(task: Task) -> bool:
    """Return whether there may be a transcript of the task: it is written before the summary, and outlives a cancel."""
    return task.status.finished or task.stage is Stage.SUMMARIZING


def results_gate(request: Request) -> FairSemaphore:
    """Return what lets few transcripts be read and written out at the same time."""
    gate = request.app.state.results
    assert isinstance(gate, FairSemaphore)  # noqa: S101 (set by attach)
    return gate


def base_url(request: Request, services: Services) -> str:
    """What goes before the path of a link: the configured address, else nothing but the prefix we are mounted at.

    Never the caller's ``Host`` header, which anyone can set.
    """
    return services.settings.http.public_url or str(request.scope.get("root_path", ""))


async def _services(request: Request) -> Services:
    """The services as whoever calls may use them."""
    services = request.app.state.services
    assert isinstance(services, Services)  # noqa: S101 (set by build_api)
    return services_for(services, client_of(request))


async def _client(request: Request) -> Client | None:
    return client_of(request)


async def _task_id(
    task_id: Annotated[str, WithJsonSchema({"type": "integer", "examples": [1]}), Query(description="The task's id.")],
) -> int:
    """Text of any kind, as an id that a database can look for."""
    text = task_id.strip()
    if not _WHOLE_NUMBER.fullmatch(text):
        raise InvalidValue("task_id must be a whole number.", "task_id")
    if len(text) > len(str(MAX_ID)) or not 0 < int(text) <= MAX_ID:
        raise TaskNotFound("There is no task of that id.")
    return int(text)


ServicesDep = Annotated[Services, Depends(_services)]
ClientDep = Annotated[Client | None, Depends(_client)]
"""Whose request it is; ``None`` where no key is asked for. A task that is made belongs to this client."""
TaskId = Annotated[int, Depends(_task_id)]

_STATUS_TEXTS = {
    400: "Contradictory, missing or broken input",
    401: "No key, or one that is not known here; only where the service has keys",
    403: "The key does not open this",
    404: "No such task",
    408: "The body came too slowly",
    409: "The task's state, or an idempotency key, rules it out",
    412: "A version of tus that is not spoken here; see `Tus-Version`",
    413: "Too large; the message names both sizes",
    414: "The URL is too long: send long options, such as `initial_prompt`, as form fields",
    415: "Not a content type or content encoding that this route takes; see `Accept-Encoding`",
    422: "A value that can't be; the message and `errors` name the fields",
    429: "The client's rate, requests under way, queued tasks or audio minutes are used up; see `Retry-After`",
    431: "Too many headers, or too large",
    460: "The bytes don't have the checksum that came with them",
    500: "A defect of the service",
    502: "The server the recording comes from, or that of the language model, failed",
    503: "Not now: the queue or the server is full, the service is starting, the database is away, or no language "
    "model takes requests; see `Retry-After`",
    504: "The server the recording comes from, or that of the language model, took too long",
}


def header(name: str, description: str) -> dict[str, Any]:
    """OpenAPI documentation of a header of an answer."""
    return {"headers": {name: {"description": description, "required": True, "schema": {"type": "string"}}}}


FILE_NAME = header("Content-Disposition", "Suggests a name for the file.")


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI documentation of error statuses, all of the task API's shape."""
    return error_responses_of(ErrorBody, *statuses)


def error_responses_of(shape: type[Schema], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI documentation of error statuses, all of one shape."""
    of_any_route = (401, 403, 414, 429, 431, 500, 503)
    return {status: {"model": shape, "description": _STATUS_TEXTS[status]} for status in (*statuses, *of_any_route)}
