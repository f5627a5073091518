"""The Summarizer deployment: transcripts in the task store in, summaries by a language model out."""

from __future__ import annotations

from ray import serve

from deployments.replicas.startup import begin_replica
from deployments.telemetry.serve_metrics import ServeMetrics
from deployments.telemetry.tracing import tracing
from deployments.wiring import NO_ACCESS_LOG, task_store
from pipeline.domain.summaries.summary import Summary
from pipeline.errors import MurmurationError
from pipeline.outbound.openai_model import OpenAiModels
from pipeline.ports import SummaryJob
from pipeline.settings import Settings
from pipeline.system_clock import SystemClock
from pipeline.usecases.summaries.transcript_summarizer import TranscriptSummarizer


class SummarizerReplica:
    """One process that talks to the language model; the transcript is read here, so that it crosses no handle."""

    def __init__(self, settings: Settings) -> None:
        begin_replica(settings)
        clock = SystemClock()
        self._store = task_store(settings)
        self._models = OpenAiModels(settings.llm, clock, ServeMetrics())
        self._summarizer = TranscriptSummarizer(self._store, self._models, settings.llm, clock)
        self._tracing = tracing(settings, "Summarizer")

    async def summarize(self, order: SummaryJob) -> Summary | MurmurationError:
        """See ``ports.Summarizer.summarize``; what that raises comes back as a value.

        Serve writes every exception to its log, with forty lines of its own inside; a server that is down is no defect.
        """
        try:
            with self._tracing.span("summarize", order.media_prefix, task_id=order.task_id):
                return await self._summarizer.summarize(order)
        except MurmurationError as error:
            return error

    async def __del__(self) -> None:
        """Serve awaits this before it stops a replica."""
        await self._models.close()
        await self._store.close()


Summarizer = serve.deployment(
    name="Summarizer",
    max_ongoing_requests=32,
    ray_actor_options={"num_cpus": 0.1},
    health_check_period_s=2,
    logging_config=NO_ACCESS_LOG,
)(SummarizerReplica)
