"""``/v1/audio``: transcriptions and translations for unmodified OpenAI clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response

from deployments.api.dependencies import ServicesDep
from deployments.api.openai.audio_form import AudioFields, AudioRequest, audio_body, audio_request, read_fields
from deployments.api.openai.awaited_task import DELETED, TranscriptionCall, failure_of, text_events, while_connected
from deployments.api.openai.bodies import TextDelta, TranscriptionBody, VerboseBody
from deployments.api.openai.model_routes import check_model
from deployments.api.openai.transcript_formats import openai_error_responses, transcript_content
from deployments.api.request.body import RequestBody
from deployments.api.request.caller import client_name, client_of
from deployments.api.request.forms import inlined
from deployments.api.request.multipart import read_form
from deployments.api.response.event_stream import EventStream
from deployments.api.response.large_json import SpoolResponse, spooled
from deployments.api.response.problems import error_response, status_of_code
from deployments.api.response.schemas import Schema
from deployments.api.services import Services
from pipeline.domain.decoding.transcription_options import TaskType
from pipeline.domain.tasks.task import Status, Task, TaskError
from pipeline.errors import InvalidValue
from pipeline.usecases.tasks.intake import Intake
from pipeline.usecases.tasks.watch import SegmentReady, TaskEnded

FIRST_EVENT_TIMEOUT_S = 10.0
"""Seconds that a stream waits for its first segment before the response begins. Until then a failure can be reported
with its status code instead of an event."""

router = APIRouter(prefix="/v1/audio", tags=["openai"])


def _schema(shape: type[Schema]) -> dict[str, Any]:
    return inlined(shape.model_json_schema(mode="serialization"))


def _documented(description: str) -> dict[str, Any]:
    """Describe a route for OpenAPI whose body and responses are handled without FastAPI's models."""
    text = {"schema": {"type": "string"}}
    content = {
        "application/json": {"schema": {"anyOf": [_schema(TranscriptionBody), _schema(VerboseBody)]}},
        "text/event-stream": {"example": f"data: {TextDelta(delta='Hello').model_dump_json(exclude_none=True)}"},
        "text/plain": text,
        "text/srt": text,
        "text/vtt": text,
    }
    return {
        "response_class": Response,
        "responses": {
            200: {"description": description, "content": content},
            **openai_error_responses(400, 404, 409, 413, 415),
        },
        "openapi_extra": {"requestBody": audio_body()},
    }


@router.post("/transcriptions", **_documented("The text in the requested format"))
async def transcriptions(request: Request, services: ServicesDep) -> Response:
    """Transcribe a recording and return the text.

    Works with unmodified OpenAI clients. The call is a task of high priority, which is deleted once it is answered and
    cancelled if the client disconnects. Unknown fields are ignored.
    """
    return await _respond(request, services, TaskType.TRANSCRIBE)


@router.post("/translations", **_documented("The text in English, in the requested format"))
async def translations(request: Request, services: ServicesDep) -> Response:
    """Translate a recording into English and return the text; otherwise the same as transcriptions."""
    return await _respond(request, services, TaskType.TRANSLATE)


async def _respond(request: Request, services: Services, task_type: TaskType) -> Response:
    transcript_request, task = await _receive_task(request, services, task_type)
    call = TranscriptionCall(services, task)
    if transcript_request.stream:
        return await _stream(request, call, transcript_request)
    try:
        ended = await while_connected(request, call.end())
        if ended.status is Status.COMPLETED:
            return await _transcript(request, services, call, ended, transcript_request)
    finally:
        call.close()
    return _failure(request, failure_of(ended) or DELETED)


async def _transcript(
    request: Request, services: Services, call: TranscriptionCall, ended: Task, transcript_request: AudioRequest
) -> Response:
    async with services.transcript_slots.hold(client_name(request)):
        task = await call.result(ended)
        if (cause := failure_of(task)) is not None:
            return _failure(request, cause)
        assert task.result is not None  # noqa: S101 (see failure_of)
        # A worker thread, since hours of speech take a second.
        content = await services.workers.run(transcript_content, task.result, transcript_request)
        return SpoolResponse(await spooled(services.workers, content.pieces), content.media_type)


async def _receive_task(request: Request, services: Services, task_type: TaskType) -> tuple[AudioRequest, Task]:
    """Receive the form with its recording, and create a task from it."""
    intake: Intake | None = None
    try:
        async with services.submitter.intake(client=client_of(request)) as intake:
            return await _read(request, RequestBody(request), intake, services, task_type)
    except asyncio.CancelledError:  # the commit goes on, so its task must be discarded
        if intake is not None and intake.commit is not None:
            services.background.spawn(_discard_after_commit(intake.commit, services))
        raise


async def _read(
    request: Request, body: RequestBody, intake: Intake, services: Services, task_type: TaskType
) -> tuple[AudioRequest, Task]:
    items: list[tuple[str, str]] = []
    checked: AudioFields | None = None

    async def check() -> AudioFields:
        nonlocal checked
        if checked != (fields := read_fields(items)):
            await check_model(fields, services)
            checked = fields
        return fields

    async def receive(data: AsyncIterator[bytes], file_name: str | None) -> None:
        await check()  # refuse invalid fields before the upload
        await intake.receive(data, file_name)

    await read_form(request, body, receive, services.settings.media.max_upload_bytes, items)
    transcript_request = audio_request(await check(), task_type)
    if intake.media is None:
        raise InvalidValue("The recording is missing: send it in a field named file.", "file")
    task, _ = await intake.create(transcript_request.submission)
    return transcript_request, task


async def _discard_after_commit(commit: asyncio.Task[tuple[Task, bool]], services: Services) -> None:
    task, _ = await commit
    TranscriptionCall(services, task).close()


async def _stream(request: Request, call: TranscriptionCall, transcript_request: AudioRequest) -> Response:
    events = call.events(request)
    first = asyncio.ensure_future(anext(events))
    try:
        await while_connected(request, asyncio.wait({first}, timeout=FIRST_EVENT_TIMEOUT_S))
        failed = first.done() and isinstance(event := first.result(), TaskEnded) and failure_of(event.task)
    except BaseException:
        first.cancel()
        call.close()
        raise
    if failed:
        await events.aclose()
        call.close()
        return _failure(request, failed)
    return EventStream(text_events(_resumed(first, events), transcript_request), call.close)


async def _resumed(
    first: asyncio.Future[SegmentReady | TaskEnded], rest: AsyncGenerator[SegmentReady | TaskEnded, None]
) -> AsyncGenerator[SegmentReady | TaskEnded, None]:
    async with aclosing(rest):
        yield await first
        async for event in rest:
            yield event


def _failure(request: Request, cause: TaskError) -> Response:
    """Return the error of a failed task. It tells OpenAI's libraries not to retry, since the service already has."""
    headers = {"x-should-retry": "false"}
    return error_response(request, status_of_code(cause.code), cause.code, cause.message, headers=headers)
