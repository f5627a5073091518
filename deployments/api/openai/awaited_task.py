"""A call for a transcript: an ordinary task that exists only while its client waits for the response."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AsyncExitStack, aclosing
from typing import TypeVar

from fastapi import Request
from sse_starlette import ServerSentEvent

from deployments.api.openai.audio_form import AudioRequest
from deployments.api.openai.bodies import TextDelta, TextDone
from deployments.api.openai.transcript_formats import log_probs, text_of, usage
from deployments.api.response.held_transcripts import LimitedTranscripts
from deployments.api.response.openai_errors import OpenAIErrorBody, openai_error
from deployments.api.services import Services
from pipeline.domain.decoding.transcript import Segment
from pipeline.domain.tasks.task import Status, Task, TaskError
from pipeline.errors import DatabaseUnavailable, TaskCancelled, TaskNotFound, UploadInterrupted
from pipeline.usecases.tasks.keepalive import discard_task, keep_alive
from pipeline.usecases.tasks.watch import SegmentReady, TaskEnded, follow, wait_for_end

Result = TypeVar("Result")

OUTAGE_PAUSE_S = 1.0
"""Pause between two reads while the database is unavailable."""
DELETED = TaskError(TaskCancelled.code, "The task of this call was cancelled or deleted.")


class TranscriptionCall:
    """A task whose client waits for the result.

    Args:
        services: the dependencies.
        task: the task created for the call.
    """

    def __init__(self, services: Services, task: Task) -> None:
        self._services = services
        self._task = task
        self._finished = False

    def close(self) -> None:
        """Stop the task and delete it, in the background: the client has its response or has disconnected."""
        services = self._services
        cancel = None if self._finished else services.dispatcher.cancel
        services.background.spawn(discard_task(services.store, services.media, cancel, self._task.id))

    async def end(self) -> Task:
        """Wait for the task to finish, and return it without its result.

        Raises:
            TaskCancelled: the task was deleted meanwhile.
        """
        services, task = self._services, self._task
        async with keep_alive(services.store, services.clock, task.id):
            while not task.status.finished:
                try:
                    task = await self._wait_for_end(task.id)
                except DatabaseUnavailable:
                    await services.clock.sleep(OUTAGE_PAUSE_S)
                except TaskNotFound as error:
                    raise TaskCancelled(DELETED.message) from error
        self._finished = True
        return task

    async def _wait_for_end(self, task_id: int) -> Task:
        services = self._services
        store, watch_end, clock = services.store, services.dispatcher.watch_end, services.clock
        return await wait_for_end(store, watch_end, clock, task_id, math.inf, include_result=False)

    async def result(self, ended: Task) -> Task:
        """Return the finished task with its result.

        Raises:
            TaskCancelled: the task was deleted meanwhile.
        """
        while True:
            try:
                return await self._services.store.get(ended.id, include_result=True)
            except DatabaseUnavailable:
                await self._services.clock.sleep(OUTAGE_PAUSE_S)
            except TaskNotFound as error:
                raise TaskCancelled(DELETED.message) from error

    async def events(self, request: Request) -> AsyncGenerator[SegmentReady | TaskEnded, None]:
        """Yield each segment as soon as it is decoded, then the end of the task."""
        services = self._services
        async with AsyncExitStack() as held:
            tasks = LimitedTranscripts(services, request, held)
            await held.enter_async_context(keep_alive(services.store, services.clock, self._task.id))
            following = follow(tasks, services.dispatcher.watch, services.clock, self._task)
            events = await held.enter_async_context(aclosing(following))
            async for event in events:
                if isinstance(event, TaskEnded):
                    self._finished = True
                if isinstance(event, SegmentReady | TaskEnded):
                    yield event


def failure_of(task: Task) -> TaskError | None:
    """Return the reason why the task has no transcript; ``None`` if it has one."""
    if task.status is Status.COMPLETED and task.result is not None:
        return None
    return task.error if task.status is Status.FAILED and task.error else DELETED


async def text_events(
    task_events: AsyncGenerator[SegmentReady | TaskEnded, None], transcript_request: AudioRequest
) -> AsyncGenerator[ServerSentEvent, None]:
    """Yield the events of a text stream: the text segment by segment, then the whole text or an error."""
    blank = ""
    async with aclosing(task_events) as events:
        async for event in events:
            if isinstance(event, SegmentReady):
                yield _event(_delta(event.segment, blank, transcript_request))
                blank = " "
            else:
                yield _event(_last(event.task, transcript_request))


def _delta(segment: Segment, blank: str, transcript_request: AudioRequest) -> TextDelta:
    logprobs = log_probs([segment]) if transcript_request.logprobs else None
    return TextDelta(delta=f"{blank}{text_of(segment)}", logprobs=logprobs)


def _last(task: Task, transcript_request: AudioRequest) -> TextDone | OpenAIErrorBody:
    if (cause := failure_of(task)) is not None:
        return openai_error(500, cause.code, cause.message)
    assert task.result is not None  # noqa: S101 (see failure_of)
    logprobs = log_probs(task.result.segments) if transcript_request.logprobs else None
    return TextDone(text=task.result.text, logprobs=logprobs, usage=usage(task.result))


def _event(data: TextDelta | TextDone | OpenAIErrorBody) -> ServerSentEvent:
    return ServerSentEvent(data.model_dump_json(exclude_none=True), sep="\n")


async def while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """Return the result of the work, which is cancelled if the client disconnects.

    Raises:
        UploadInterrupted: the client disconnected, so nobody reads the error.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise UploadInterrupted("The connection ended before the response was ready.")
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)  # an exception of the work was raised above


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
