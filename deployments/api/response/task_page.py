"""A page of tasks, streamed while it is read: one transcript at a time, until the page is full."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

from fastapi import Request

from deployments.api.concurrency.event_loop import LoopBudget
from deployments.api.request.caller import client_name
from deployments.api.response.envelope import base_url, envelope_pieces, may_have_result
from deployments.api.response.large_json import Spool, record_pieces, spooled
from deployments.api.response.task_filter import TaskFilter
from deployments.api.response.task_record import TaskPageData, TaskRecord, task_record
from deployments.api.services import Services
from pipeline.domain.tasks.task import Task
from pipeline.errors import DatabaseUnavailable, TaskNotFound
from pipeline.ports import TaskPage


class TaskPageStream:
    """The response with one page of tasks.

    The first record is read before anything is sent, so that a failure can still be an error response. The page ends
    early, with the offset to continue at, when it exceeds ``http.max_page_bytes`` or the database becomes unavailable.
    """

    def __init__(self, request: Request, services: Services, condition: TaskFilter, task_page: TaskPage) -> None:
        self._request = request
        self._services = services
        self._condition = condition
        self._task_page = task_page
        self._remaining = iter(task_page.tasks)
        self._sent_records = 0
        self._turns = LoopBudget()
        self._next: bytes | Spool | None = None

    @classmethod
    async def read(cls, request: Request, services: Services, condition: TaskFilter) -> TaskPageStream:
        """Query the store, and return the page with its first record read. Raises ``DatabaseUnavailable``."""
        task_page = await services.store.query(replace(condition.as_query(), include_result=False))
        page = cls(request, services, condition, task_page)
        page._next = await page._read_one()
        return page

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the response body."""
        head, tail = b"".join(envelope_pieces(self._request, iter((b"{}",)))).rsplit(b"{}", 1)
        yield head + b'{"tasks":['
        size_bytes = 0
        try:
            while self._next is not None:
                if self._sent_records:
                    yield b","
                self._sent_records += 1
                async for block in self._blocks(self._next):
                    size_bytes += len(block)
                    yield block
                self.close()
                if size_bytes < self._services.settings.http.max_page_bytes:
                    self._next = await self._try_one()
        finally:
            self.close()
        yield b"]," + self._end()[1:] + tail

    def close(self) -> None:
        """Discard a record that was read but not sent."""
        if isinstance(self._next, Spool):
            self._next.close()
        self._next = None

    async def _blocks(self, one: bytes | Spool) -> AsyncGenerator[bytes, None]:
        if isinstance(one, Spool):
            async for block in one.blocks():
                yield block
        else:
            await self._turns.spend(len(one))
            yield one

    async def _try_one(self) -> bytes | Spool | None:
        try:
            return await self._read_one()
        except DatabaseUnavailable:
            return None

    async def _read_one(self) -> bytes | Spool | None:
        """Return the record of the next task that still exists; ``None`` after the last."""
        for task in self._remaining:
            if not self._condition.include_result or not may_have_result(task):
                return self._shown_record(task).model_dump_json().encode()
            try:
                return await self._with_result(task)
            except TaskNotFound:  # deleted since
                continue
        return None

    async def _with_result(self, task: Task) -> Spool:
        async with self._services.transcript_slots.hold(client_name(self._request)):
            task = await self._services.store.get(task.id, include_result=True)
            return await spooled(self._services.workers, record_pieces(self._shown_record(task), task.result))

    def _shown_record(self, task: Task) -> TaskRecord:
        return task_record(replace(task, result=None), base_url(self._request, self._services))

    def _end(self) -> bytes:
        next_offset = self._condition.offset + self._sent_records
        has_more = next_offset < self._task_page.total_count and bool(self._sent_records)
        data = TaskPageData(
            tasks=[],
            total_count=self._task_page.total_count,
            has_more=has_more,
            next_offset=next_offset if has_more else None,
        )
        return data.model_dump_json(exclude={"tasks"}).encode()
