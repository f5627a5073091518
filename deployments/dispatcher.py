"""The Dispatcher deployment: the loop that claims tasks and sees them through, and the few questions it answers.

It is started with the replica, never from a request: what a request starts dies with its client. An update runs the
old and the new replica side by side for seconds; the leases in the database make that harmless.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.api.schemas import encode_record
from deployments.handles import SplitterHandle, SummarizerHandle, TranscriberHandle
from deployments.metrics import ServeMetrics
from deployments.wiring import QUIET, media_store, task_store, upload_store
from pipeline.clock import SystemClock
from pipeline.net import GuardedClient
from pipeline.observability import configure_logging
from pipeline.outbound.callback import WebhookSender
from pipeline.ports import EngineInfo
from pipeline.settings import Settings
from pipeline.usecases.deliver_callback import CallbackCourier
from pipeline.usecases.dispatch import Dispatcher as TaskDispatcher
from pipeline.usecases.reap import Reaper
from pipeline.usecases.run_summaries import SummaryRunner


@dataclass(frozen=True, slots=True)
class DispatcherState:
    """What the Dispatcher knows of the service: whether the database answers, and what the replicas run."""

    database_ready: bool
    engine: EngineInfo | None


class DispatcherReplica:
    """One process that drives tasks."""

    def __init__(
        self, settings: Settings, splitter: DeploymentHandle, whisper: DeploymentHandle, summarizer: DeploymentHandle
    ) -> None:
        configure_logging(settings.logging)
        store, media, clock, metrics = task_store(settings), media_store(settings), SystemClock(), ServeMetrics()
        owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._store = store
        self._courier = CallbackCourier(
            store,
            WebhookSender(GuardedClient(settings.network), settings.callback, clock),
            encode_record,
            clock,
            metrics,
            settings.callback,
            owner=owner,
        )
        self._dispatcher = TaskDispatcher(
            owner=owner,
            store=store,
            media=media,
            splitter=SplitterHandle(splitter),
            transcriber=TranscriberHandle(whisper),
            clock=clock,
            settings=settings,
            metrics=metrics,
            finished=self._courier.wake,
            transcribed=lambda: self._summaries.wake(),
        )
        self._summaries = SummaryRunner(
            store,
            SummarizerHandle(summarizer),
            clock,
            metrics,
            settings.dispatch,
            settings.llm,
            owner=owner,
            finished=self._dispatcher.ended,
        )
        self._stopping = asyncio.Event()
        self._reaper = Reaper(store, upload_store(store), media, clock, settings.dispatch)
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self._dispatcher.prepare()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._dispatcher.run())
            group.create_task(self._summaries.run())
            group.create_task(self._reaper.run())
            group.create_task(self._courier.run(self._stopping))

    def wake(self) -> None:
        """There is a task to claim, or a summary to write."""
        self._dispatcher.wake()
        self._summaries.wake()

    async def watch(self, task_id: int, seen: int, timeout_s: float) -> int:
        """The number of the task's latest news, once it is not ``seen``, or after ``timeout_s``."""
        return await self._dispatcher.watch(task_id, seen, timeout_s)

    async def watch_end(self, task_id: int, timeout_s: float) -> None:
        """Returns when the task has finished, or after ``timeout_s``."""
        await self._dispatcher.watch_end(task_id, timeout_s)

    async def cancel(self, task_id: int) -> None:
        """Stops the attempt at a task that was cancelled or deleted."""
        await self._summaries.cancel(task_id)
        await self._dispatcher.cancel(task_id)

    def state(self) -> DispatcherState:
        """What is ready and what is not."""
        return DispatcherState(self._dispatcher.database_ready, self._dispatcher.engine)

    def check_health(self) -> None:
        """Raises what ended the loop, so that Serve replaces this replica."""
        if self._running.done():
            self._running.result()

    async def __del__(self) -> None:
        """Serve awaits this before it stops a replica: every task goes back to the queue at once."""
        self._stopping.set()
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running
        await self._store.close()


Dispatcher = serve.deployment(
    name="Dispatcher",
    num_replicas=1,
    max_ongoing_requests=10_000,
    ray_actor_options={"num_cpus": 0.1},
    health_check_period_s=2,
    graceful_shutdown_timeout_s=20,
    logging_config=QUIET,
)(DispatcherReplica)
