"""Successful responses, and the description of error responses for OpenAPI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fastapi import Request, Response

from deployments.api.request.caller import client_name
from deployments.api.response.large_json import SpoolResponse, record_pieces, spooled
from deployments.api.response.request_echo import request_params, request_url
from deployments.api.response.schemas import AnyEnvelope, EmptyEnvelope, ErrorBody, Schema
from deployments.api.response.task_record import task_record
from deployments.api.services import Services
from pipeline.domain.tasks.task import Stage, Task


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
    async with services.transcript_slots.hold(client_name(request)):
        task = await services.store.get(task.id, include_result=True)
        pieces = record_pieces(task_record(replace(task, result=None), prefix), task.result)
        spool = await spooled(services.workers, envelope_pieces(request, pieces, status))
    return SpoolResponse(spool, "application/json", status)


def may_have_result(task: Task) -> bool:
    """Return whether the task may have a transcript: it is stored before the summary, and a cancel keeps it."""
    return task.status.finished or task.stage is Stage.SUMMARIZING


def base_url(request: Request, services: Services) -> str:
    """Return the prefix of links: the configured URL, else only the path that the application is mounted at.

    The caller's ``Host`` header is never used, since anyone can set it.
    """
    return services.settings.http.public_url or str(request.scope.get("root_path", ""))


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
