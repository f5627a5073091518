"""From speech spans to chunks: what the model is given in one go, cut where it hurts least.

A pure, incremental plan: the same speech gives the same chunks, however it arrives in pieces.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

import numpy as np

from pipeline.domain.audio.spans import Span, to_samples
from pipeline.domain.audio.speech import FRAME_SAMPLES, Scores, merge_touching

MAX_EXTENT = to_samples(120)
"""Speech is packed into one chunk only from within this stretch of the timeline, which bounds what waits for a cut."""

COMFORTABLE_FILL = 0.85
"""Where a run of speech is divided evenly, chunks are planned this full, so that there is room to choose the cut."""

CUT_FRAMES = 5
"""A cut is made in the middle of the 0.16 s with the lowest mean score: one low frame may be a mere plosive."""

PackedSpans = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class _CutRange:
    """Lengths of speech a chunk may have, in samples, and the one that would be best."""

    low: int
    high: int
    aim: int


class ChunkPlanner:
    """Packs speech, in order, into chunks of at most ``max_chunk`` samples of speech.

    As long as more follows, a chunk is filled to the last pause that fits, or, where nobody pauses in the later half
    of what is allowed, to its quietest moment. It is cut only when two chunks' worth of speech is there; what is left
    at the end of a run is divided evenly. So no run ends in a stub.

    Args:
        max_chunk: longest chunk, in samples.
        start: speech before this sample is ignored.
    """

    def __init__(self, max_chunk: int, start: int = 0) -> None:
        self._max = max_chunk
        self._start = start
        self._pending: list[Span] = []
        # Of the whole recording: 450 kB an hour, less than the bookkeeping of dropping what has passed.
        self._scores = array("f")

    @property
    def pending_start(self) -> int | None:
        """Where the speech begins that is in no chunk yet."""
        return self._pending[0].start if self._pending else None

    def add(self, pieces: Iterable[Span], scores: Scores, settled: int = 0) -> list[PackedSpans]:
        """Takes more speech and the scores of the frames that were heard since; returns the chunks that are certain.

        Args:
            pieces: speech in order, after all that was added before; pieces that touch belong together.
            scores: one per frame, from the start of the timeline on, at least as far as the pieces reach.
            settled: no piece that is still to come begins before this sample.
        """
        self._scores.frombytes(scores.astype(np.float32).tobytes())
        chunks: list[PackedSpans] = []
        for piece in pieces:
            if piece.end > self._start:
                chunks += self._append(Span(max(piece.start, self._start), piece.end))
        if self._is_too_far(settled):
            chunks += self.finish()
        return chunks

    def finish(self) -> list[PackedSpans]:
        """The rest of the speech, divided evenly."""
        chunks: list[PackedSpans] = []
        while (total := self._total) > self._max:
            chunks.append(self._cut(self._even_zone(total)))
        if self._pending:
            chunks.append(tuple(self._pending))
            self._pending = []
        return chunks

    def _append(self, piece: Span) -> list[PackedSpans]:
        chunks: list[PackedSpans] = []
        if self._is_too_far(piece.start):
            chunks += self.finish()
        self._pending = list(merge_touching([*self._pending, piece]))
        while self._total >= 2 * self._max:
            chunks.append(self._cut(_CutRange(self._max // 2, self._max, self._max)))
        return chunks

    def _is_too_far(self, start: int) -> bool:
        """Whether speech that begins there is too far from what waits to be packed with it."""
        return bool(self._pending) and start > max(self._pending[-1].end, self._pending[0].start + MAX_EXTENT)

    @property
    def _total(self) -> int:
        return sum(span.samples for span in self._pending)

    def _even_zone(self, total: int) -> _CutRange:
        """The first of the lengths that divide ``total`` evenly, with room around it."""
        count = ceil(total / (COMFORTABLE_FILL * self._max))
        aim = total // count
        room = self._max // 4
        return _CutRange(max(total - (count - 1) * self._max, aim - room), min(self._max, aim + room), aim)

    def _cut(self, zone: _CutRange) -> PackedSpans:
        """Takes a chunk off the front, as long as the zone allows: up to a pause, or to the quietest moment."""
        joints = [joint for joint in self._pause_positions() if zone.low <= joint <= zone.high]
        length = min(joints, key=lambda joint: abs(joint - zone.aim)) if joints else self._quietest(zone)
        taken: list[Span] = []
        while length > 0:
            first = self._pending.pop(0)
            if first.samples > length:
                self._pending.insert(0, Span(first.start + length, first.end))
                first = Span(first.start, first.start + length)
            taken.append(first)
            length -= first.samples
        return tuple(taken)

    def _pause_positions(self) -> list[int]:
        """Lengths of speech up to each pause."""
        return [int(length) for length in np.cumsum([span.samples for span in self._pending])]

    def _quietest(self, zone: _CutRange) -> int:
        """The length of speech up to the quietest moment of a zone that lies in a single span."""
        before = max((joint for joint in self._pause_positions() if joint < zone.low), default=0)
        span = next(
            span for span, joint in zip(self._pending, self._pause_positions(), strict=True) if joint > zone.high
        )
        offset = span.start - before  # from lengths of speech to the timeline
        first, last = ceil((zone.low + offset) / FRAME_SAMPLES), (zone.high + offset) // FRAME_SAMPLES
        scores = np.array(self._scores[first:last])
        if not scores.size:
            return zone.aim
        width = min(CUT_FRAMES, scores.size)
        means = np.convolve(scores, np.full(width, 1 / width), "valid")
        moments = (first + np.flatnonzero(means == means.min())) * FRAME_SAMPLES + width * FRAME_SAMPLES // 2
        lengths = moments - offset
        return int(lengths[np.abs(lengths - zone.aim).argmin()])
