"""The state of one chunk in the batcher: its place in line, its decodings, and what remains to be decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial

from pipeline.asr.engine import Decoded, DecodeItem
from pipeline.asr.speech_recovery import (
    UncoveredSpeech,
    insert_recovered,
    is_made_up,
    recovered_segments,
    uncovered_samples,
    uncovered_speech,
)
from pipeline.domain.decoding import quality_gate
from pipeline.domain.decoding.decoding_cost import search_width, step_cost
from pipeline.domain.decoding.quality_gate import GateVerdict
from pipeline.domain.decoding.transcript import LanguageDetection, Segment
from pipeline.domain.decoding.transcription_options import TranscriptionOptions

RECOVERY_REASON = "uncovered"
"""The reason for decoding speech that no word covers."""

MAX_RECOVERIES = 16
"""Maximum number of uncovered stretches of one chunk that are decoded on their own."""

DEFAULTS = TranscriptionOptions()

FREE_DECODINGS = 14.0
"""Decodings with default options for which a chunk keeps its place in line: more than all their fallbacks cost."""


@dataclass(frozen=True, slots=True)
class DecodedChunk:
    """The result of a chunk, on its own timeline.

    Attributes:
        segments: in seconds from the chunk's start; empty for silence.
        language: as requested or detected.
        detection: set where the language was detected.
        attempts: number of decodings of the whole chunk.
    """

    segments: tuple[Segment, ...]
    language: str
    detection: LanguageDetection | None
    attempts: int


@dataclass(slots=True, eq=False)
class PendingChunk:
    """A chunk waiting for a batch, or being decoded in one. It satisfies ``batch_selection.BatchCandidate``.

    Attributes:
        rank: rank of its priority; 0 is served first.
        age: start tag and sequence number, which order chunks of one rank. Both are kept when the chunk is decoded
            again. Work that costs more than with default options, or exceeds ``FREE_DECODINGS``, counts like audio that
            came so much later, so that one chunk with expensive options does not keep a replica to itself.
        item: the next decoding.
        key: ``Engine.batch_key`` of the item.
        frames: window that the item needs.
        reason: why the chunk is decoded again: ``repetitive``, ``unlikely`` or ``uncovered``.
        may_defer: whether the chunk may wait for other retries to share a batch. It may not if a client or the next
            chunk of its task waits for it. It defers only when its window changes: the chunks that it waited for then
            reach each higher temperature together with it.
        deferred_until: number of the batch before which it lets others of its rank go first.
        future: gets the ``DecodedChunk`` or the error.
    """

    rank: int
    age: tuple[float, int]
    item: DecodeItem
    key: Hashable
    frames: int
    reason: str = ""
    may_defer: bool = False
    deferred_until: int = 0
    future: Future[DecodedChunk] = field(default_factory=Future)
    _attempts: list[Decoded] = field(default_factory=list)
    _segments: list[Segment] = field(default_factory=list)
    _uncovered: deque[UncoveredSpeech] = field(default_factory=deque)
    _current: UncoveredSpeech | None = None
    _recovery_count: int = 0
    _detection: LanguageDetection | None = None
    _decoding_count: int = 0
    _work_s: float = 0.0
    _excess_s: float = 0.0
    _free_s: float = field(init=False)

    def __post_init__(self) -> None:
        """Set the amount of work that the chunk may take before it loses its place."""
        self._free_s = FREE_DECODINGS * self.item.duration_s

    @property
    def order(self) -> tuple[int, float, int]:
        """Sort key of the line: rank, then start tag with the work beyond the free share, then sequence number."""
        start_tag, number = self.age
        return self.rank, start_tag + max(self._excess_s, self._work_s - self._free_s), number

    @property
    def cost_factor(self) -> float:
        """Cost of decoding ``item`` relative to the cost with default options."""
        item = self.item
        return step_cost(item.options, item.temperature, encoded=item.encoding is not None)

    @property
    def width(self) -> int:
        """Number of hypotheses of ``item`` that are decoded side by side."""
        return search_width(self.item.options, self.item.temperature)

    def record(self, decoded: Decoded, *, gate: bool) -> DecodedChunk | None:
        """Record a decoding of ``item``.

        Args:
            decoded: the decoding.
            gate: whether a decoding that fails the task's thresholds is followed by a fallback.

        Returns:
            The chunk's result, or ``None`` if ``item``, which has changed, is to be decoded next.
        """
        self._record_work()
        self._attempts.append(replace(decoded, encoding=None) if self._attempts else decoded)
        self._detection = self._detection or decoded.detection
        self._decoding_count += self._current is None
        retry = quality_gate.apply_quality_gate(decoded, self.item.options) is GateVerdict.RETRY
        if retry and gate and self._prepare_fallback(decoded):
            return None
        kept = self._best_attempt() if retry else decoded
        return self._accept(kept) if self._current is None else self._recover(self._current, kept)

    def _record_work(self) -> None:
        item = self.item
        default_cost = step_cost(DEFAULTS, item.temperature, encoded=item.encoding is not None)
        self._work_s += self.cost_factor * item.duration_s
        self._excess_s += max(0.0, self.cost_factor - default_cost) * item.duration_s

    def finish_with_best(self) -> DecodedChunk | None:
        """Return the result so far after the engine failed on ``item``; ``None`` if there is none."""
        if self._current is None:
            if not self._attempts:
                return None
            kept = self._best_attempt()
            self._segments = [] if is_made_up(self.item, kept) else list(kept.segments)
        return self._finish(self.item.language or "")

    def _prepare_fallback(self, decoded: Decoded) -> bool:
        """Set ``item`` to the next fallback step for the same audio; return ``False`` if there is none.

        Uncovered speech is never sampled: it may be no speech at all, and sampling would then invent a text.
        """
        first, options = self._attempts[0], self.item.options
        step = quality_gate.next_fallback(self._attempts, options)
        if step is None or (self._current is not None and step.temperature != first.temperature):
            return False
        new_window = len(self._attempts) == 1 or decoded.full_window != step.full_window
        self.may_defer = new_window and self.rank > 0 and not options.condition_on_previous_text
        self.reason = "repetitive" if quality_gate.is_repetitive(decoded, options) else "unlikely"
        self.item = replace(
            self.item,
            language=decoded.language,
            temperature=step.temperature,
            full_window=step.full_window,
            encoding=first.encoding if first.full_window == step.full_window else None,
        )
        return True

    def _best_attempt(self) -> Decoded:
        """Return the best of the decodings of ``item``, all of which failed the quality gate."""
        return quality_gate.best_of_failed(self._attempts, self.item.options, partial(uncovered_samples, self.item))

    def _accept(self, decoded: Decoded) -> DecodedChunk | None:
        """Use the decoding's segments for the chunk, and queue the speech that they do not cover."""
        self._segments = [] if is_made_up(self.item, decoded) else list(decoded.segments)
        words = [word for segment in self._segments for word in segment.words or ()]
        aligned = all(segment.words is not None for segment in self._segments)
        if aligned and (words or not decoded.full_window):  # no text in the full window means that nothing is said
            self._uncovered.extend(uncovered_speech(self.item, words))
        return self._next_uncovered(decoded.language)

    def _recover(self, gap: UncoveredSpeech, decoded: Decoded) -> DecodedChunk | None:
        """Insert the segments recovered from a gap, if any, and queue the speech that they do not cover."""
        recovered = recovered_segments(gap, decoded)
        if recovered:
            words = [word for segment in recovered for word in segment.words or ()]
            self._segments = insert_recovered(self._segments, gap, recovered)
            texts = (*gap.recovered_texts, decoded.text)
            self._uncovered.extend(uncovered_speech(gap.item, words, gap.offset_s, texts))
        return self._next_uncovered(decoded.language)

    def _next_uncovered(self, language: str) -> DecodedChunk | None:
        """Set ``item`` to the next uncovered speech; return the chunk's result if there is none."""
        if not self._uncovered or self._recovery_count >= MAX_RECOVERIES:
            return self._finish(language)
        self._current = self._uncovered.popleft()
        self._recovery_count += 1
        self._attempts.clear()
        self.reason, self.may_defer = RECOVERY_REASON, False
        first_temperature = self.item.options.temperature[0]
        self.item = replace(self._current.item, language=language, temperature=first_temperature)
        return None

    def _finish(self, language: str) -> DecodedChunk:
        self._attempts.clear()  # each encoding keeps the encodings of its whole batch in memory
        return DecodedChunk(tuple(self._segments), language, self._detection, self._decoding_count)
