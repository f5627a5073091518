"""The Summarizer deployment, which has a language model write summaries of stored transcripts."""

from __future__ import annotations

from ray import serve

from deployments.replicas.startup import begin_replica
from deployments.telemetry.serve_metrics import ServeMetrics
from deployments.telemetry.trace_export import tracing
from deployments.wiring import NO_ACCESS_LOG, task_store
from pipeline.domain.summaries.summary import Summary
from pipeline.errors import MurmurationError
from pipeline.outbound.openai_model import OpenAiModels
from pipeline.ports import SummaryJob
from pipeline.settings import Settings
from pipeline.system_clock import SystemClock
from pipeline.usecases.summaries.transcript_summarizer import TranscriptSummarizer


class SummarizerReplica:
    """A process that calls the language model. It reads the transcript itself, so that no handle has to carry it."""

    def __init__(self, settings: Settings) -> None:
        begin_replica(settings)
        clock = SystemClock()
        self._store = task_store(settings)
        self._models = OpenAiModels(settings.llm, clock, ServeMetrics())
        self._summarizer = TranscriptSummarizer(self._store, self._models, settings.llm, clock)
        self._tracing = tracing(settings, "Summarizer")

    async def summarize(self, job: SummaryJob) -> Summary | MurmurationError:
        """Summarize as ``ports.Summarizer`` specifies, inside a span of the trace, but return errors as values.

        Serve logs every exception with forty lines of its own stack; an unreachable language model is no defect.
        """
        try:
            with self._tracing.span("summarize", job.media_prefix, task_id=job.task_id):
                return await self._summarizer.summarize(job)
        except MurmurationError as error:
            return error

    async def __del__(self) -> None:
        """Close the connections; Serve awaits this before it stops a replica."""
        await self._models.close()
        await self._store.close()


summarizer_deployment = serve.deployment(
    name="Summarizer",
    max_ongoing_requests=32,
    ray_actor_options={"num_cpus": 0.1},
    health_check_period_s=2,
    logging_config=NO_ACCESS_LOG,
)(SummarizerReplica)
