"""A task, followed live: server-sent events from where it stands to its end."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, Field, TypeAdapter
from sse_starlette import ServerSentEvent

from deployments.api.concurrency.event_loop import LoopBudget
from deployments.api.response.envelope import ServicesDep, TaskId, base_url, error_responses
from deployments.api.response.event_stream import EventStream
from deployments.api.response.held_transcripts import GatedTranscripts
from deployments.api.response.schemas import Schema, record
from deployments.api.services import Services
from pipeline.domain.decoding.transcript import Segment
from pipeline.domain.tasks.task import Stage, Status, Task
from pipeline.errors import InvalidValue
from pipeline.usecases.tasks.watch import SegmentReady, TaskEnded, TaskEvent, TaskProgressed, TaskQueued, follow

END_ID = "end"
"""Id of the last event. A browser's ``EventSource`` opens a stream that has ended again; 204 tells it to stop."""

router = APIRouter(prefix="/api/whisper/tasks", tags=["tasks"])


class QueuedEvent(Schema):
    """The task waits for its turn."""

    task_id: int
    status: Status


class ProgressEvent(Schema):
    """How far the task has come."""

    task_id: int
    status: Status
    stage: Stage | None
    """What is being done."""
    audio_done_s: float = Field(examples=[12.5])
    """Seconds of speech that are decoded."""
    audio_total_s: float | None = Field(examples=[65.5])
    """Seconds of speech in all; null until the recording is split."""
    progress: float | None = Field(examples=[0.19])
    """The one over the other, 0..1."""


_SEGMENT: TypeAdapter[Segment] = TypeAdapter(Segment)
_EXAMPLE = """event: progress
data: {"task_id":1,"status":"processing","stage":"transcribing","audio_done_s":0.0,"audio_total_s":10.0,"progress":0.0}

id: 0
event: segment
data: {"id":1,"seek":22,"start":0.216,"end":5.416,"text":" Hello world.", … }

id: end
event: completed
data: {"id":1,"status":"completed", … }
"""
_STREAM: dict[str, Any] = {
    "description": "The events, until the task has finished",
    "content": {"text/event-stream": {"example": _EXAMPLE}},
}


@router.get(
    "/events",
    response_class=Response,
    responses={
        200: _STREAM,
        204: {"description": "`Last-Event-ID` says that the last event was received: nothing follows"},
        **error_responses(404, 422),
    },
)
async def task_events(
    request: Request,
    services: ServicesDep,
    task_id: TaskId,
    last_event_id: Annotated[
        str | None, Header(description="The id of the last event that was received: what came before is left out.")
    ] = None,
) -> Response:
    """Follow a task as server-sent events.

    - `queued`: it waits for its turn.
    - `progress`: how far it has come: `stage`, `audio_done_s` of `audio_total_s` seconds.
    - `segment`: one segment of the transcript, in the order of the timeline, as soon as all before it are decoded. The
      event's `id` is that of the chunk it completes, counted from 0 over the chunks in which something was said: send
      it as `Last-Event-ID` to go on from there.
    - `completed`, `failed` or `cancelled`: the task's record (without the result); the stream ends.

    A task that has finished tells its segments and its end. Comments are sent as heartbeats.
    """
    task = await services.store.get(task_id)
    if last_event_id == END_ID and task.status.finished:
        return Response(status_code=204)
    after = _chunk_number(last_event_id)
    return EventStream(_events(request, services, task, after))


async def _events(request: Request, services: Services, task: Task, after: int) -> AsyncIterator[ServerSentEvent]:
    """Yield the events of a task."""
    prefix, turns = base_url(request, services), LoopBudget()
    async with AsyncExitStack() as held:
        tasks = GatedTranscripts(services.store, request, held)
        task = await tasks.get(task.id, include_result=True)
        following = follow(tasks, services.watch, services.clock, task, after)
        async for happened in await held.enter_async_context(aclosing(following)):
            event = _encode(happened, prefix)
            await turns.spend(len(event.data or ""))
            yield event


def _encode(happened: TaskEvent, prefix: str) -> ServerSentEvent:
    match happened:
        case SegmentReady(segment, chunk, last):
            return _event("segment", _SEGMENT.dump_json(segment), str(chunk) if last else None)
        case TaskQueued(task):
            return _event("queued", _json(QueuedEvent(task_id=task.id, status=task.status)))
        case TaskProgressed(task):
            return _event("progress", _json(_progress(task)))
        case TaskEnded(task):
            return _event(task.status, _json(record(replace(task, result=None), prefix)), END_ID)


def _progress(task: Task) -> ProgressEvent:
    return ProgressEvent(
        task_id=task.id,
        status=task.status,
        stage=task.stage,
        audio_done_s=round(task.audio_done_s, 3),
        audio_total_s=round(task.audio_total_s, 3) if task.split_done else None,
        progress=None if task.progress is None else round(task.progress, 4),
    )


def _json(data: BaseModel) -> bytes:
    return data.model_dump_json().encode()


def _event(name: str, data: bytes, event_id: str | None = None) -> ServerSentEvent:
    return ServerSentEvent(data.decode(), event=name, id=event_id, sep="\n")


def _chunk_number(last_event_id: str | None) -> int:
    if not last_event_id or last_event_id == END_ID:
        return -1
    if not re.fullmatch("[0-9]{1,9}", last_event_id):
        raise InvalidValue("Last-Event-ID must be the id of an event of this stream.", "Last-Event-ID")
    return int(last_event_id)
