"""The Dispatcher deployment, which claims tasks, carries them out, and answers a few calls about them.

Its loops start with the replica, never from a request: Serve cancels the work of a request whose client disconnects.
During an update the old and the new replica run side by side for seconds, which leases in the database make harmless.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.cluster import preflight
from deployments.cluster.nodes import alive_nodes, gpus
from deployments.cluster.shared_storage import verify_storage
from deployments.dispatcher_handle import DispatcherState
from deployments.handles import CrawlerHandle, SplitterHandle, SummarizerHandle, TranscriberHandle
from deployments.replicas.startup import begin_replica
from deployments.telemetry.serve_metrics import ServeMetrics
from deployments.telemetry.trace_export import tracing
from deployments.wiring import NO_ACCESS_LOG, media_store, record_encoder, task_store, upload_store
from pipeline.errors import DatabaseUnavailable
from pipeline.net import GuardedClient
from pipeline.outbound.webhook_sender import WebhookSender
from pipeline.process_identity import own_name
from pipeline.settings import Settings
from pipeline.system_clock import SynchronizedClock
from pipeline.usecases.background_loop import SupervisedLoop, failure_messages
from pipeline.usecases.callbacks.callback_delivery import CallbackDeliverer
from pipeline.usecases.dispatch.dispatcher import Dispatcher
from pipeline.usecases.summaries.summary_runner import SummaryRunner
from pipeline.usecases.task_completion import TaskCompletion
from pipeline.usecases.task_notifier import TaskNotifier
from pipeline.usecases.tasks.housekeeping import Housekeeper
from pipeline.usecases.tasks.queue_report import QueueReporter

logger = logging.getLogger(__name__)

CLUSTER_CHECK_S = 10.0
"""Interval at which the cluster is checked against the configuration, since nodes come and go."""


class DispatcherReplica:
    """A process that runs the Dispatcher's loops: tasks, summaries, callbacks, housekeeping and reports."""

    def __init__(
        self,
        settings: Settings,
        splitter: DeploymentHandle,
        whisper: DeploymentHandle,
        summarizer: DeploymentHandle,
        crawler: DeploymentHandle | None,
        device: str = "cpu",
        storage_id: str | None = None,
    ) -> None:
        begin_replica(settings)
        preflight.refuse(settings)
        clock, metrics = SynchronizedClock(), ServeMetrics()
        store, media = task_store(settings, clock, tracing(settings, "Dispatcher"), metrics), media_store(settings)
        verify_storage(media, storage_id)
        owner = self._owner = own_name()
        self._settings = settings
        self._problems: tuple[str, ...] = ()
        self._store = store
        self._needs_gpu = device == "cuda"
        transcriber = TranscriberHandle(whisper)
        self._callbacks = CallbackDeliverer(
            store,
            WebhookSender(GuardedClient(settings.network), settings.callback, clock),
            record_encoder(),
            clock,
            metrics,
            settings.callback,
            owner=owner,
        )
        self._notifier = TaskNotifier()
        completion = TaskCompletion(self._notifier, metrics, clock, self._callbacks.wake)
        self._summaries = SummaryRunner(
            store,
            SummarizerHandle(summarizer),
            clock,
            metrics,
            settings.dispatch,
            settings.llm,
            owner=owner,
            finished=completion.report,
        )
        self._dispatcher = Dispatcher(
            owner=owner,
            store=store,
            media=media,
            splitter=SplitterHandle(splitter),
            transcriber=transcriber,
            crawler=CrawlerHandle(crawler) if crawler else None,
            clock=clock,
            settings=settings,
            metrics=metrics,
            notifier=self._notifier,
            finished=self._callbacks.wake,
            transcribed=self._summaries.wake,
        )
        self._stopping = asyncio.Event()
        self._housekeeper = Housekeeper(store, upload_store(store), media, clock, settings, metrics)
        self._reporter = QueueReporter(store, clock, metrics)
        self._cluster_watch = SupervisedLoop("cluster_watch", "checking the cluster", clock, metrics)
        self._running = asyncio.create_task(self._run())
        self._waking = asyncio.create_task(transcriber.wake())

    async def _run(self) -> None:
        await self._dispatcher.prepare()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._dispatcher.run())
            group.create_task(self._summaries.run())
            group.create_task(self._housekeeper.run())
            group.create_task(self._callbacks.run(self._stopping))
            group.create_task(self._reporter.run())
            group.create_task(self._cluster_check_loop())

    async def _cluster_check_loop(self) -> None:
        while True:
            await self._cluster_watch.attempt(self._check_cluster)  # an unreachable Ray is no reason to stop working
            await asyncio.sleep(CLUSTER_CHECK_S)

    async def _check_cluster(self) -> None:
        current_problems = preflight.problems(self._settings, len(await asyncio.to_thread(alive_nodes)))
        for sentence in set(current_problems) - set(self._problems):
            logger.error("%s", sentence)
        self._problems = current_problems

    def wake(self) -> None:
        """Check at once for a task to claim or a summary to write."""
        self._dispatcher.wake()
        self._summaries.wake()

    async def watch(self, task_id: int, seen: int, timeout_s: float) -> int:
        """Return the task's latest change number once it differs from ``seen``, or after ``timeout_s``."""
        return await self._notifier.watch(task_id, seen, timeout_s)

    async def watch_end(self, task_id: int, timeout_s: float) -> None:
        """Wait until the task has finished, or for ``timeout_s``."""
        await self._notifier.watch_end(task_id, timeout_s)

    async def cancel(self, task_id: int) -> None:
        """Stop the attempt at a task that was cancelled or deleted, and its summary."""
        await self._summaries.cancel(task_id)
        await self._dispatcher.cancel(task_id)

    async def state(self) -> DispatcherState:
        """Return the state that readiness is derived from."""
        engine = self._dispatcher.engine
        missing = self._needs_gpu and engine is None and not await asyncio.to_thread(gpus)
        return DispatcherState(
            self._dispatcher.database_ready,
            engine,
            self._problems,
            missing,
            stopped=self._dispatcher.failure_messages,
            failure_messages=self._failure_messages,
        )

    @property
    def _failure_messages(self) -> tuple[str, ...]:
        others = self._summaries, self._callbacks, self._housekeeper, self._reporter
        return (
            *(sentence for each in others for sentence in each.failure_messages),
            *failure_messages(self._cluster_watch),
        )

    def check_health(self) -> None:
        """Raise the error that ended the loops, so that Serve replaces this replica."""
        if self._running.done():
            self._running.result()

    async def __del__(self) -> None:
        """Return every task to the queue at once; Serve awaits this before it stops a replica."""
        self._stopping.set()
        self._waking.cancel()
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running
        with suppress(DatabaseUnavailable):
            await self._store.expire_leases_of(self._owner)  # another Dispatcher may repeat callbacks in flight
        await self._store.close()


dispatcher_deployment = serve.deployment(
    name="Dispatcher",
    num_replicas=1,
    max_ongoing_requests=10_000,
    ray_actor_options={"num_cpus": 0.1},
    health_check_period_s=2,
    graceful_shutdown_timeout_s=20,
    logging_config=NO_ACCESS_LOG,
)(DispatcherReplica)
