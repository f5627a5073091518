"""Finished transcripts that event streams keep in memory: only a few at the same time, for clients in rotation."""

from __future__ import annotations

from contextlib import AsyncExitStack

from fastapi import Request
from typing_extensions import override

from deployments.api.request.caller import client_name
from deployments.api.response.envelope import may_have_result
from deployments.api.services import Services
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.tasks.task import Task
from pipeline.usecases.tasks.watch import TaskReader


class LimitedTranscripts(TaskReader):
    """A reader of tasks that waits for a slot before it reads a transcript.

    Args:
        services: the tasks, and the slots of transcripts.
        request: the request of the stream.
        held: the exit stack that releases the slot when it closes.
    """

    def __init__(self, services: Services, request: Request, held: AsyncExitStack) -> None:
        self._store = services.store
        self._held = held
        self._client = client_name(request)
        self._slots = services.stream_slots
        self._has_slot = False

    @override
    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        task = await self._store.get(task_id)
        if not include_result or not may_have_result(task):
            return task
        if not self._has_slot:
            self._has_slot = True
            await self._held.enter_async_context(self._slots.hold(self._client))
        return await self._store.get(task_id, include_result=True)

    @override
    async def results(self, task_id: int, first: int) -> tuple[ChunkResult, ...]:
        return await self._store.results(task_id, first)
