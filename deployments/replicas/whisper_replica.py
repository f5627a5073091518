"""The WhisperReplica deployment, which decodes chunks with one model a process, on one GPU or on CPU cores."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ray import serve

from deployments.autoscaling import RTFX_KEY
from deployments.cluster.shared_storage import verify_storage
from deployments.replicas.startup import begin_replica
from deployments.telemetry.serve_metrics import ServeMetrics
from deployments.telemetry.trace_export import tracing
from deployments.wiring import NO_ACCESS_LOG, engine, media_store
from pipeline.asr.batcher import MicroBatcher
from pipeline.asr.transcriber import LocalTranscriber
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.scheduling.replica_scaling import ReplicaSpeed
from pipeline.errors import ReplicaLost
from pipeline.ports import ChunkFailure, EngineInfo, Unit
from pipeline.settings import BatchSettings, Settings


class WhisperModelReplica:
    """A process with one loaded model and a micro-batcher. A CUDA fault ends the process, and with it the model."""

    def __init__(self, settings: Settings, device: str, storage_id: str | None = None) -> None:
        """Load the model and decode with it once, so that every replica that has started works.

        Args:
            settings: name the model and its options.
            device: ``cpu`` or ``cuda``; without a usable GPU, the CPU is used and a warning logged.
            storage_id: the id that the media store must have, see ``deployments.cluster.shared_storage``.

        Raises:
            ConfigurationError: this node uses another media store than the rest of the cluster.
            ModelUnavailable: the model can't be loaded; the message lists those that can.
        """
        begin_replica(settings)
        self._stall_s = settings.asr.stall_s
        media = media_store(settings)
        verify_storage(media, storage_id)
        self._metrics = ServeMetrics()
        loaded = engine(settings, device)
        self._batcher = MicroBatcher(loaded, BatchSettings(), metrics=self._metrics).start()
        self._transcriber = LocalTranscriber(media, loaded, self._batcher, vad=settings.vad)
        self._transcriber.warm_up()
        self._tracing = tracing(settings, "WhisperReplica")
        self._speed = ReplicaSpeed()
        self._busy_s = self._batcher.stats().busy_s

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply batch settings without a restart. Raise ``ValidationError`` for an unknown name or value."""
        self._batcher.reconfigure(BatchSettings(**user_config))

    async def transcribe(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkResult | ChunkFailure], None]:
        """Transcribe as ``ports.Transcriber`` specifies, inside a span of the task's trace, and measure the speed."""
        with self._tracing.span("transcribe", unit.media_prefix, **_trace_attributes(unit)):
            async for results in self._transcriber.transcribe(unit):
                self._record_speed(sum(result.audio_s for result in results if isinstance(result, ChunkResult)))
                yield results

    def _record_speed(self, audio_s: float) -> None:
        """Update the speed with finished audio and the time that the engine has worked since the last update."""
        busy_s = self._batcher.stats().busy_s
        self._speed = self._speed.updated(audio_s, busy_s - self._busy_s)
        self._busy_s = busy_s
        self._metrics.gauge("rtfx", self._speed.rtfx)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return this replica's speed for the scaling policy; Serve calls this every few seconds."""
        return {RTFX_KEY: self._speed.rtfx}

    async def describe(self) -> EngineInfo:
        """Return the engine, model and device of this replica."""
        return await self._transcriber.describe()

    def check_health(self) -> None:
        """Raise ``ReplicaLost`` if the inference thread has died or hangs, so that Serve replaces this replica."""
        if not self._batcher.healthy:
            raise ReplicaLost("The inference thread has died.")
        if self._batcher.decoding_s > self._stall_s:
            raise ReplicaLost(f"Decoding a batch has taken more than {self._stall_s:.0f} seconds (asr.stall_s).")


def _trace_attributes(unit: Unit) -> dict[str, Any]:
    """Return a unit's attributes for its span."""
    audio_s = sum(chunk.duration_s for chunk in unit.chunks)
    return {
        "task_id": unit.task_id,
        "first_chunk": unit.chunks[0].index,
        "chunks": len(unit.chunks),
        "audio_s": audio_s,
    }


whisper_deployment = serve.deployment(
    name="WhisperReplica",
    max_ongoing_requests=256,
    health_check_period_s=2,
    graceful_shutdown_timeout_s=120,
    logging_config=NO_ACCESS_LOG,
)(WhisperModelReplica)
