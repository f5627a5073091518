"""Counters of the work of a batcher."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class BatchStats:
    """Counters of a batcher since its start.

    Attributes:
        batches: calls of the engine that returned.
        chunks: decodings, retries included; ``chunks / batches`` is the mean batch size.
        retries: decodings after which the chunk was queued again, for a fallback or for gap recovery.
        failures: chunks that could not be decoded.
        audio_s: seconds of audio decoded; every decoding counts.
        window_s: seconds of audio encoded, padding included; ``audio_s / window_s`` is the share that was not wasted.
        busy_s: seconds that the engine worked.
        waiting: chunks in line now.
    """

    batches: int = 0
    chunks: int = 0
    retries: int = 0
    failures: int = 0
    audio_s: float = 0.0
    window_s: float = 0.0
    busy_s: float = 0.0
    waiting: int = 0

    def after_batch(self, chunks: int, audio_s: float, window_s: float, busy_s: float) -> BatchStats:
        """Return the counters after one more batch.

        Args:
            chunks: decodings in the batch.
            audio_s: their audio.
            window_s: their windows, padding included.
            busy_s: seconds that the engine took.
        """
        return replace(
            self,
            batches=self.batches + 1,
            chunks=self.chunks + chunks,
            audio_s=self.audio_s + audio_s,
            window_s=self.window_s + window_s,
            busy_s=self.busy_s + busy_s,
        )
