"""The Splitter deployment, which turns recordings into prepared audio and chunks."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator

from ray import serve

from deployments.cluster.shared_storage import verify_storage
from deployments.replicas.startup import begin_replica
from deployments.security.confinement_check import check_confinement
from deployments.telemetry.trace_export import tracing
from deployments.wiring import NO_ACCESS_LOG, media_store, sandbox, splitter
from pipeline.ports import SplitDone, SplitPart, SplitRequest
from pipeline.settings import Settings

NICENESS = 5
"""Decoding and VAD yield to inference where both share cores; a Splitter is much faster than the model anyway."""


class SplitterReplica:
    """A process that splits recordings; it opens them in processes of its own."""

    def __init__(self, settings: Settings, storage_id: str | None = None) -> None:
        """Prepare to split.

        Raises:
            ConfigurationError: the media store has another id than ``storage_id``, or confinement is less than
                ``confinement.required``.
        """
        begin_replica(settings)
        verify_storage(media_store(settings), storage_id)
        os.nice(NICENESS)
        decoders = sandbox(settings)
        check_confinement("decoder", decoders.confinement(), settings.confinement.required)
        self._splitter = splitter(settings, decoders)
        self._tracing = tracing(settings, "Splitter")

    async def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        """Split as ``ports.Splitter`` specifies, inside a span of the task's trace."""
        with self._tracing.span("split", request.media_prefix, task_id=request.task_id, part=request.first_part):
            async for event in self._splitter.split(request):
                yield event


splitter_deployment = serve.deployment(
    name="Splitter",
    max_ongoing_requests=16,
    ray_actor_options={"num_cpus": 0.2},
    health_check_period_s=2,
    logging_config=NO_ACCESS_LOG,
)(SplitterReplica)
