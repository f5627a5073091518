"""Server-sent events of a task, from its present state to its end."""

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
from deployments.api.dependencies import ServicesDep, TaskId
from deployments.api.response.envelope import base_url, error_responses
from deployments.api.response.event_stream import EventStream
from deployments.api.response.held_transcripts import LimitedTranscripts
from deployments.api.response.schemas import Schema
from deployments.api.response.task_record import task_record
from deployments.api.services import Services
from pipeline.domain.decoding.transcript import Segment
from pipeline.domain.tasks.task import Stage, Status, Task
from pipeline.errors import InvalidValue
from pipeline.usecases.tasks.watch import SegmentReady, TaskEnded, TaskEvent, TaskProgressed, TaskQueued, follow

END_ID = "end"
"""Id of the last event. A browser's ``EventSource`` reconnects to a stream that has ended; 204 tells it to stop."""

router = APIRouter(prefix="/api/whisper/tasks", tags=["tasks"])


class QueuedEvent(Schema):
    """The event of a task that waits in the queue."""

    task_id: int
    status: Status


class ProgressEvent(Schema):
    """The progress of a task."""

    task_id: int
    status: Status
    stage: Stage | None
    """The stage of a task in progress."""
    audio_done_s: float = Field(examples=[12.5])
    """Decoded speech, in seconds."""
    audio_total_s: float | None = Field(examples=[65.5])
    """All speech, in seconds; null until the recording is split."""
    progress: float | None = Field(examples=[0.19])
    """Decoded share of the speech, from 0 to 1; null until the recording is split."""


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
    "description": "The events until the task has finished",
    "content": {"text/event-stream": {"example": _EXAMPLE}},
}


@router.get(
    "/events",
    response_class=Response,
    responses={
        200: _STREAM,
        204: {"description": "The client has received the last event according to `Last-Event-ID`"},
        **error_responses(404, 422),
    },
)
async def task_events(
    request: Request,
    services: ServicesDep,
    task_id: TaskId,
    last_event_id: Annotated[
        str | None, Header(description="The id of the last event received. The stream continues after it.")
    ] = None,
) -> Response:
    """Follow a task as server-sent events.

    - `queued`: the task waits in the queue.
    - `progress`: the task's `stage`, and the decoded seconds `audio_done_s` of `audio_total_s`.
    - `segment`: one segment of the transcript. Segments are sent in the order of the timeline, each as soon as all
      speech before it is decoded. The last segment of a chunk has the chunk's number as its `id`, counted from 0 over
      the chunks with speech. Send it as `Last-Event-ID` to continue from there.
    - `completed`, `failed` or `cancelled`: the task's record without the result. The stream then ends.

    For a finished task, the stream contains its segments and its end. Comments are sent as heartbeats.
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
        tasks = LimitedTranscripts(services, request, held)
        task = await tasks.get(task.id, include_result=True)
        following = follow(tasks, services.dispatcher.watch, services.clock, task, after)
        async for task_event in await held.enter_async_context(aclosing(following)):
            event = _encode(task_event, prefix)
            await turns.spend(len(event.data or ""))
            yield event


def _encode(task_event: TaskEvent, prefix: str) -> ServerSentEvent:
    match task_event:
        case SegmentReady(segment, chunk, last):
            return _event("segment", _SEGMENT.dump_json(segment), str(chunk) if last else None)
        case TaskQueued(task):
            return _event("queued", _json(QueuedEvent(task_id=task.id, status=task.status)))
        case TaskProgressed(task):
            return _event("progress", _json(_progress(task)))
        case TaskEnded(task):
            return _event(task.status, _json(task_record(replace(task, result=None), prefix)), END_ID)


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
