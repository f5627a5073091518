"""Finished transcripts that event streams hold: few at the same time, each client in turn."""

from __future__ import annotations

from contextlib import AsyncExitStack

from fastapi import Request

from deployments.api.concurrency.event_loop import FairSemaphore
from deployments.api.middleware.admission import client_name
from deployments.api.response.envelope import may_have_result
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.tasks.task import Task
from pipeline.ports import TaskRecords


class GatedTranscripts:
    """``usecases.follow.TaskReader``, of which a transcript is read once there is a place for it.

    Args:
        store: where the tasks are.
        request: whose stream it is.
        held: keeps the place until it is closed.
    """

    def __init__(self, store: TaskRecords, request: Request, held: AsyncExitStack) -> None:
        self._store = store
        self._held = held
        self._client = client_name(request)
        gate = request.app.state.replays
        assert isinstance(gate, FairSemaphore)  # noqa: S101 (set by attach)
        self._gate = gate
        self._has_place = False

    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        """Return the task; with its transcript where it is asked for and there is one."""
        task = await self._store.get(task_id)
        if not include_result or not may_have_result(task):
            return task
        if not self._has_place:
            self._has_place = True
            await self._held.enter_async_context(self._gate.one(self._client))
        return await self._store.get(task_id, include_result=True)

    async def results(self, task_id: int, first: int) -> tuple[ChunkResult, ...]:
        """Return the results of chunks from the first one on, as far as the task is not completed."""
        return await self._store.results(task_id, first)
