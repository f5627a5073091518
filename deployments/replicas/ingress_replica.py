"""The Ingress deployment: the HTTP interface, and the same operations as Python methods of its handle.

::

    from ray import serve

    handle = serve.get_app_handle("murmuration")
    record = handle.transcribe.remote(Path("talk.mp3").read_bytes(), file_name="talk.mp3", language="en").result()
    print(record.result.text)
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.api.application import build_api
from deployments.api.concurrency.background_tasks import BackgroundTasks
from deployments.api.concurrency.event_loop import FairSemaphore, single_flight, tune_interpreter
from deployments.api.request.link_options import parse_link_request
from deployments.api.request.task_options import check_loaded_engine, parse_task_request
from deployments.api.services import Readiness, Services, build_submitter, build_uploads
from deployments.cluster import preflight
from deployments.cluster.metrics_page import metrics_page
from deployments.cluster.shared_storage import verify_storage
from deployments.dispatcher_handle import DispatcherHandle, DispatcherState
from deployments.handles import SummarizerHandle
from deployments.replicas.startup import begin_replica
from deployments.security.confinement_check import check_confinement
from deployments.security.exposure import guard_http_servers
from deployments.telemetry.serve_metrics import ServeMetrics
from deployments.telemetry.trace_export import tracing
from deployments.wiring import extractor, media_store, sandbox, task_store, upload_store
from pipeline.domain.links.platforms import LinkKind
from pipeline.domain.tasks.task import Task
from pipeline.errors import InvalidValue
from pipeline.net import GuardedClient
from pipeline.ports import EngineInfo
from pipeline.settings import Settings
from pipeline.system_clock import SynchronizedClock
from pipeline.usecases.summaries.fair_summarizer import FairSummarizer
from pipeline.usecases.tasks.watch import wait_for_end

ENGINE_TTL_S = 10.0
"""Age at which the description of the engine is requested again."""

BACKGROUND_NICENESS = 10
"""Niceness of the processes that extract audio, which yield to everything else."""


class IngressReplica:
    """A process that serves requests of HTTP clients and of Python callers."""

    def __init__(
        self,
        settings: Settings,
        dispatcher: DeploymentHandle,
        summarizer: DeploymentHandle,
        storage_id: str | None = None,
    ) -> None:
        begin_replica(settings)
        preflight.refuse(settings)
        media = media_store(settings)
        verify_storage(media, storage_id)
        background = BackgroundTasks()
        self._dispatcher = DispatcherHandle(dispatcher, background.spawn)
        clock = SynchronizedClock()
        store = task_store(settings, clock, tracing(settings, "Ingress"), ServeMetrics())
        decoders = sandbox(settings, niceness=BACKGROUND_NICENESS)
        confinement = decoders.confinement()
        check_confinement("decoder", confinement, settings.confinement.required)
        check_url = GuardedClient(settings.network).check
        self._loaded: EngineInfo | None = None
        self._loaded_until = 0.0
        self._services = Services(
            store=store,
            submitter=build_submitter(settings, store, media, self._dispatcher, clock, check_url),
            uploads=build_uploads(settings, upload_store(store), media, clock),
            media=media,
            settings=settings,
            clock=clock,
            dispatcher=self._dispatcher,
            readiness=single_flight(self._readiness),
            engine=self._engine,
            summarizer=FairSummarizer(SummarizerHandle(summarizer), settings.llm.max_waited_summaries, clock),
            metrics=single_flight(metrics_page),
            count=ServeMetrics().count,
            background=background,
            extractor=extractor(settings, decoders),
            transcript_slots=FairSemaphore(settings.http.max_results_in_hand),
            stream_slots=FairSemaphore(settings.http.max_replays_in_hand),
            knows_addresses=os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1",  # Serve's HAProxy does not forward them
            capacity=_capacity(),
            confinement=confinement,
        )
        self._api = build_api(self._services)
        self._front = guard_http_servers(settings)
        tune_interpreter()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Serve calls this once the replica exists."""
        return self._api

    async def _readiness(self) -> Readiness:
        state = await self._dispatcher.state()
        if state is None:
            return Readiness(ready=False, waiting_for=("the Dispatcher",))
        return readiness_of(state, self._front.problems())

    async def _engine(self) -> EngineInfo | None:
        """Return the engine, cached for ``ENGINE_TTL_S``: a call takes ten milliseconds, and an update some seconds."""
        now = self._services.clock.monotonic()
        if self._loaded is None or now >= self._loaded_until:
            self._loaded, self._loaded_until = (await self._readiness()).engine, now + ENGINE_TTL_S
        return self._loaded

    # for Python callers

    async def submit(self, audio: bytes, file_name: str = "audio", **options: Any) -> Task:
        """Queue a recording and return its task at once.

        Args:
            audio: a file's bytes, in any format that FFmpeg decodes.
            file_name: the name to show in the task's record.
            options: the task options of the HTTP interface, ``priority`` and ``callback_url`` among them.

        Raises:
            RequestError: an option is invalid; the message names it.
            Unavailable: the queue is full, or the database or the storage can't be reached.
        """
        task_request = parse_task_request(options)
        await check_loaded_engine(task_request, self._services)
        return await self._services.submitter.submit(task_request.submission, audio, file_name=file_name)

    async def submit_link(self, url: str, kind: str = "any", **options: Any) -> Task:
        """Queue the recording that a URL leads to, and return its task at once.

        Args:
            url: the URL of the recording or of a page.
            kind: the kind of URL: a ``file``, a post on ``tiktok`` or ``douyin``, or a page of ``any`` site.
            options: the task options of the HTTP interface.

        Raises:
            RequestError: an option is invalid; the message names it.
            Unavailable: the queue is full, or the database can't be reached.
        """
        if kind not in tuple(LinkKind):
            raise InvalidValue(f"kind is one of {', '.join(LinkKind)}.", "kind")
        task_request = parse_link_request({"url": url, **options}, LinkKind(kind))
        await check_loaded_engine(task_request, self._services)
        return await self._services.submitter.submit(task_request.submission)

    async def result(self, task_id: int, wait_s: float = 0.0) -> Task:
        """Return the task, with its transcript if it is completed. Wait up to ``wait_s`` seconds for its end.

        Raises:
            TaskNotFound: there is no such task.
        """
        services = self._services
        return await wait_for_end(services.store, services.dispatcher.watch_end, services.clock, task_id, wait_s)

    async def transcribe(self, audio: bytes, file_name: str = "audio", **options: Any) -> Task:
        """Queue a recording as ``submit`` does, and return its task once it is completed, failed or cancelled."""
        task = await self.submit(audio, file_name, **options)
        while not task.status.finished:
            task = await self.result(task.id, wait_s=60.0)
        return task

    async def cancel(self, task_id: int) -> Task:
        """Cancel a task that has not finished. Raise ``TaskNotFound`` or ``TaskStateConflict``."""
        task = await self._services.store.cancel(task_id)
        await self._dispatcher.cancel(task_id)
        return task


def _capacity() -> int:
    """Return the number of requests that Serve sends to this replica at a time (``max_ongoing_requests``)."""
    return int(serve.get_replica_context()._deployment_config.max_ongoing_requests)  # noqa: SLF001 - no public way


def readiness_of(state: DispatcherState, front_problems: tuple[str, ...] = ()) -> Readiness:
    """Return the readiness that clients see.

    The service is not ready while tasks can't make progress, or if ``front_problems`` has a reason why its HTTP servers
    are not safe to use.
    """
    waiting = [
        *([] if state.database_ready else ["the database"]),
        *([] if state.engine else [_missing_for_engine(state)]),
    ]
    problems = (*state.problems, *state.stopped, *front_problems)
    return Readiness(not waiting and not problems, tuple(waiting), state.engine, problems, state.failure_messages)


def _missing_for_engine(state: DispatcherState) -> str:
    """Return the name of what has to start before an engine is known."""
    return "a GPU node" if state.gpu_node_missing else "a WhisperReplica that has loaded its model"


ingress_deployment = serve.deployment(
    name="Ingress",
    max_ongoing_requests=1000,
    ray_actor_options={"num_cpus": 0.1},
    health_check_period_s=2,
)(serve.ingress()(IngressReplica))
