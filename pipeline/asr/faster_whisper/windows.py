"""The window in which the encoder sees a batch."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.asr.engine import FULL_WINDOW_FRAMES, DecodeItem

MARGIN_FRAMES = 200
"""Silence after the longest chunk, which shows the model that the transcript ends."""

FLOOR_FRAMES = 800
"""Shortest window: with 6 s instead of 8 s more words are lost (``python -m tests.benchmarks.robustness``)."""

STEP_FRAMES = 100
"""Windows are whole seconds, so that there are few different shapes."""


def window_frames(items: Sequence[DecodeItem], *, short_windows: bool) -> int:
    """Return the frames to encode for each item of a batch.

    These are the frames of the longest item and a margin, rounded up to whole seconds. Items that are encoded already
    keep their window, and the window is the full 30 s if an item requires it or ``short_windows`` is false.
    """
    if items[0].encoding:
        return items[0].encoding.frames
    if not short_windows or any(item.full_window for item in items):
        return FULL_WINDOW_FRAMES
    needed = max(item.frames for item in items) + MARGIN_FRAMES
    stepped = -(-needed // STEP_FRAMES) * STEP_FRAMES
    return min(FULL_WINDOW_FRAMES, max(FLOOR_FRAMES, stepped))
