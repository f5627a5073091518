"""A model of the time that a batch takes, learnt from the batches before it."""

from __future__ import annotations

SCALE_FRAMES = 2000
"""Encoded frames that weigh as much as the overhead of a batch when both rates learn from a prediction error."""

LEARNING_RATE = 0.3
"""Share of a prediction error that one batch corrects."""


class CostModel:
    """A predictor of batch durations: ``cost_factor × (overhead + rate × rows × frames)`` seconds.

    Overhead and rate follow the measurements by normalised least mean squares (Widrow & Hoff, 1960), an exponentially
    weighted average that separates the two as soon as batches differ in size. The first guess is that of a CPU, where
    one chunk alone costs nearly as much as four together. The first measurement replaces the scale of the guess.

    Args:
        overhead_s: first guess of the seconds that every batch costs, whatever its size.
        per_frame_s: first guess of the seconds that one frame of one row costs.
    """

    def __init__(self, overhead_s: float = 0.3, per_frame_s: float = 0.00015) -> None:
        self._overhead_s = overhead_s
        self._per_frame_s = per_frame_s
        self._measured = False

    def predict(self, rows: int, frames: int, cost_factor: float = 1.0) -> float:
        """Return the seconds that ``rows`` chunks in a window of ``frames`` will take.

        Args:
            rows: number of chunks.
            frames: window of each chunk.
            cost_factor: cost of one chunk relative to the cost with default options.
        """
        return cost_factor * (self._overhead_s + self._per_frame_s * rows * frames)

    def observe(self, rows: int, frames: int, seconds: float, cost_factor: float = 1.0) -> None:
        """Learn from a batch that took ``seconds``; the other arguments are those of ``predict``."""
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
