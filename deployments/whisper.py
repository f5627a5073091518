"""The WhisperReplica deployment: one model in one process, on one GPU or on the CPU's cores."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ray import serve

from deployments.metrics import ServeMetrics
from deployments.wiring import QUIET, media_store
from pipeline.asr.batch import MicroBatcher
from pipeline.asr.loading import load_engine
from pipeline.asr.transcriber import LocalTranscriber
from pipeline.domain.transcript import ChunkResult
from pipeline.errors import ReplicaLost
from pipeline.observability import configure_logging
from pipeline.ports import ChunkFailure, EngineInfo, Unit
from pipeline.settings import BatchSettings, Settings


class WhisperModelReplica:
    """One loaded model behind a micro-batcher. The model lives as long as the replica: a CUDA fault ends both."""

    def __init__(self, settings: Settings, device: str) -> None:
        """Loads the model and decodes with it: a replica that exists works.

        Args:
            settings: which model, and how.
            device: ``cpu`` or ``cuda``; a GPU that turns out not to be there is replaced by the CPU, with a warning.

        Raises:
            ModelUnavailable: the model can't be had; the message lists what can.
        """
        configure_logging(settings.logging)
        self._stall_s = settings.asr.stall_s
        engine = load_engine(settings.asr, device=device)
        self._batcher = MicroBatcher(engine, BatchSettings(), metrics=ServeMetrics()).start()
        self._transcriber = LocalTranscriber(media_store(settings), engine, self._batcher)
        self._transcriber.warm_up()

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Takes batch settings over without a restart; an unknown name or value is refused in words."""
        self._batcher.reconfigure(BatchSettings(**user_config))

    async def transcribe(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkResult | ChunkFailure], None]:
        """See ``ports.Transcriber.transcribe``."""
        async for results in self._transcriber.transcribe(unit):
            yield results

    async def describe(self) -> EngineInfo:
        """What runs here."""
        return await self._transcriber.describe()

    def check_health(self) -> None:
        """Raises once the inference thread has died or hangs, so that Serve replaces this replica."""
        if not self._batcher.healthy:
            raise ReplicaLost("The inference thread has died.")
        if self._batcher.decoding_s > self._stall_s:
            raise ReplicaLost(f"A batch has been decoded for more than {self._stall_s:.0f} seconds.")


WhisperReplica = serve.deployment(
    name="WhisperReplica",
    max_ongoing_requests=256,
    health_check_period_s=2,
    graceful_shutdown_timeout_s=120,
    logging_config=QUIET,
)(WhisperModelReplica)
