"""Dividing speech spans into chunks for the model, with cuts where they lose the least.

The plan is pure and incremental: the same speech gives the same chunks, however it is divided among calls.
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
"""Samples of the timeline from which one chunk may take its speech. It bounds the speech that waits for a cut."""

COMFORTABLE_FILL = 0.85
"""Share of ``max_chunk`` planned for each chunk when a run is divided evenly, which leaves room to choose the cut."""

CUT_FRAMES = 5
"""Frames averaged to find a cut: the middle of the quietest 0.16 s. A single quiet frame may be only a plosive."""

PackedSpans = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class _CutRange:
    """The allowed lengths of a chunk's speech, in samples, and the preferred one."""

    low: int
    high: int
    aim: int


class ChunkPlanner:
    """A planner that packs speech, in order, into chunks of at most ``max_chunk`` samples of speech.

    While more speech follows, a chunk is filled to the last pause that fits. If nobody pauses in the later half of the
    allowed range, it is cut at the quietest moment there. It is cut only once two chunks' worth of speech is pending,
    and the rest of a run is divided evenly, so that no run ends in a very short chunk.

    Args:
        max_chunk: longest chunk, in samples.
        start: the sample before which speech is ignored.
    """

    def __init__(self, max_chunk: int, start: int = 0) -> None:
        self._max = max_chunk
        self._start = start
        self._pending: list[Span] = []
        # Scores of the whole recording: 450 kB an hour, which costs less than the bookkeeping to drop old ones.
        self._scores = array("f")

    @property
    def pending_start(self) -> int | None:
        """The start of the first speech that is in no chunk yet, in samples; ``None`` without such speech."""
        return self._pending[0].start if self._pending else None

    def add(self, pieces: Iterable[Span], scores: Scores, settled: int = 0) -> list[PackedSpans]:
        """Add speech and the scores of its frames; return the chunks that are final.

        Args:
            pieces: speech in order, later than all speech added before; pieces that touch belong together.
            scores: one per frame since the previous call, from the start of the timeline on, at least as far as the
                pieces reach.
            settled: sample before which no later piece begins.
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
        """Return the chunks of the pending speech, divided evenly."""
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
        """Return whether speech from ``start`` on is too far from the pending speech to share a chunk with it."""
        return bool(self._pending) and start > max(self._pending[-1].end, self._pending[0].start + MAX_EXTENT)

    @property
    def _total(self) -> int:
        return sum(span.samples for span in self._pending)

    def _even_zone(self, total: int) -> _CutRange:
        """Return the range around the first of the lengths that divide ``total`` evenly."""
        count = ceil(total / (COMFORTABLE_FILL * self._max))
        aim = total // count
        room = self._max // 4
        return _CutRange(max(total - (count - 1) * self._max, aim - room), min(self._max, aim + room), aim)

    def _cut(self, zone: _CutRange) -> PackedSpans:
        """Remove a chunk from the front of the pending speech, cut at a pause in the range.

        Without a pause there, cut at the quietest moment.
        """
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
        """Return the length of speech up to each pause."""
        return [int(length) for length in np.cumsum([span.samples for span in self._pending])]

    def _quietest(self, zone: _CutRange) -> int:
        """Return the length of speech up to the quietest moment of a range that lies in a single span."""
        before = max((joint for joint in self._pause_positions() if joint < zone.low), default=0)
        span = next(
            span for span, joint in zip(self._pending, self._pause_positions(), strict=True) if joint > zone.high
        )
        offset = span.start - before  # converts a length of speech to a position on the timeline
        first, last = ceil((zone.low + offset) / FRAME_SAMPLES), (zone.high + offset) // FRAME_SAMPLES
        scores = np.array(self._scores[first:last])
        if not scores.size:
            return zone.aim
        width = min(CUT_FRAMES, scores.size)
        means = np.convolve(scores, np.full(width, 1 / width), "valid")
        moments = (first + np.flatnonzero(means == means.min())) * FRAME_SAMPLES + width * FRAME_SAMPLES // 2
        lengths = moments - offset
        return int(lengths[np.abs(lengths - zone.aim).argmin()])
