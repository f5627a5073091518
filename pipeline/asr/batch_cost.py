"""How long a batch will take, learnt from those before it."""

from __future__ import annotations

SCALE_FRAMES = 2000
"""Encoded frames that weigh as much as a whole batch when the two rates learn from an error."""

LEARNING_RATE = 0.3
"""Share of an error that one batch mends."""


class CostModel:
    """Predicts ``cost_factor × (overhead + rate × rows × frames)`` seconds for a batch.

    Both rates follow what is measured by normalised least mean squares (Widrow & Hoff, 1960): an exponentially weighted
    average that tells the two apart as soon as batches differ in size. The first guess is that of a CPU, where a lone
    chunk costs nearly what four together cost; the first measurement replaces its scale.

    Args:
        overhead_s: first guess of the seconds a batch costs however small it is.
        per_frame_s: first guess of the seconds a frame of one row costs.
    """

    def __init__(self, overhead_s: float = 0.3, per_frame_s: float = 0.00015) -> None:
        self._overhead_s = overhead_s
        self._per_frame_s = per_frame_s
        self._measured = False

    def predict(self, rows: int, frames: int, cost_factor: float = 1.0) -> float:
        """Seconds that ``rows`` chunks in a window of ``frames`` will take.

        Args:
            rows: chunks.
            frames: of each.
            cost_factor: how many times as much as with default options one of them costs.
        """
        return cost_factor * (self._overhead_s + self._per_frame_s * rows * frames)

    def observe(self, rows: int, frames: int, seconds: float, cost_factor: float = 1.0) -> None:
        """Learns from a batch that took ``seconds``."""
        self._learn(rows, frames, seconds / cost_factor)

    def _learn(self, rows: int, frames: int, seconds: float) -> None:
        if not self._measured:
            scale = seconds / self.predict(rows, frames)
            self._overhead_s, self._per_frame_s = self._overhead_s * scale, self._per_frame_s * scale
            self._measured = True
            return
        size = rows * frames / SCALE_FRAMES
        step = LEARNING_RATE * (seconds - self.predict(rows, frames)) / (1 + size * size)
        self._overhead_s = max(0.0, self._overhead_s + step)
        self._per_frame_s = max(0.0, self._per_frame_s + step * size / SCALE_FRAMES)
