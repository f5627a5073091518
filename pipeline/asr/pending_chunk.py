"""A chunk's way through the batcher: its place in line, its attempts, and what is left to decode of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial

from pipeline.asr.engine import Decoded, DecodeItem
from pipeline.asr.speech_recovery import (
    UncoveredSpeech,
    insert,
    is_silence,
    missing_speech,
    recovered_segments,
    uncovered_samples,
)
from pipeline.domain.decoding import quality_gate
from pipeline.domain.decoding.decoding_cost import search_width, step_cost
from pipeline.domain.decoding.quality_gate import GateVerdict
from pipeline.domain.decoding.transcript import LanguageDetection, Segment
from pipeline.domain.decoding.transcription_options import TranscriptionOptions

RECOVERY_REASON = "uncovered"
"""The reason for which speech that no word covers is decoded."""

MAX_RECOVERIES = 16
"""Stretches of one chunk that are decoded on their own because its text says nothing about them."""

DEFAULTS = TranscriptionOptions()

FREE_DECODINGS = 14.0
"""Decodings with default options for which a chunk keeps its place in line: more than their whole ladder costs."""


@dataclass(frozen=True, slots=True)
class DecodedChunk:
    """What came of a chunk.

    Attributes:
        segments: in seconds from the chunk's start; empty for silence.
        language: asked for or detected.
        detection: set where the language was detected.
        attempts: decodings of the whole chunk.
    """

    segments: tuple[Segment, ...]
    language: str
    detection: LanguageDetection | None
    attempts: int


@dataclass(slots=True, eq=False)
class PendingChunk:
    """A chunk in the batcher's hands.

    Attributes:
        task_id: whose it is.
        rank: its priority; 0 is served first.
        age: orders chunks of one rank; kept when the chunk is decoded again, but for what it cost more than with the
            defaults, or beyond ``FREE_DECODINGS``. That counts like audio that came so much later: one chunk with dear
            options does not keep a replica to itself.
        item: what is to be decoded next.
        key: ``Engine.batch_key`` of the item.
        frames: window the item needs.
        reason: why it is to be decoded again: ``repetitive``, ``unlikely`` or ``uncovered``.
        may_defer: whether others that are decoded again in its way are worth waiting for: not where someone waits
            for it, be it a client or the task's next chunk, and not at every temperature, since those it waited
            for go up the ladder with it.
        deferred_until: see ``forming.BatchCandidate``.
        future: gets the ``DecodedChunk`` or the error.
    """

    task_id: int
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
    _missing: deque[UncoveredSpeech] = field(default_factory=deque)
    _missing_now: UncoveredSpeech | None = None
    _recoveries: int = 0
    _detection: LanguageDetection | None = None
    _decodings: int = 0
    _work_s: float = 0.0
    _excess_s: float = 0.0
    _free_s: float = field(init=False)

    def __post_init__(self) -> None:
        """Set how much work the chunk may take before it loses its place."""
        self._free_s = FREE_DECODINGS * self.item.duration_s

    @property
    def order(self) -> tuple[int, float, int]:
        """Sorts tickets: rank, then age."""
        start_tag, number = self.age
        return self.rank, start_tag + max(self._excess_s, self._work_s - self._free_s), number

    @property
    def cost_factor(self) -> float:
        """See ``forming.BatchCandidate``."""
        item = self.item
        return step_cost(item.options, item.temperature, encoded=item.encoding is not None)

    @property
    def width(self) -> int:
        """See ``forming.BatchCandidate``."""
        return search_width(self.item.options, self.item.temperature)

    def take(self, decoded: Decoded, *, gate: bool) -> DecodedChunk | None:
        """Record one more decoding of ``item``.

        Args:
            decoded: of ``item``.
            gate: whether one that fails the task's thresholds is worth another.

        Returns:
            What came of the chunk; ``None`` if ``item``, changed, is to be decoded next.
        """
        self._record_work()
        self._attempts.append(replace(decoded, encoding=None) if self._attempts else decoded)
        self._detection = self._detection or decoded.detection
        self._decodings += self._missing_now is None
        retry = quality_gate.apply_quality_gate(decoded, self.item.options) is GateVerdict.RETRY
        if retry and gate and self._retry(decoded):
            return None
        kept = self._best_attempt() if retry else decoded
        return self._accept(kept) if self._missing_now is None else self._recover(self._missing_now, kept)

    def _record_work(self) -> None:
        item = self.item
        usual = step_cost(DEFAULTS, item.temperature, encoded=item.encoding is not None)
        self._work_s += self.cost_factor * item.duration_s
        self._excess_s += max(0.0, self.cost_factor - usual) * item.duration_s

    def finish_with_best(self) -> DecodedChunk | None:
        """Finish with what was transcribed before the model failed on ``item``; ``None`` if that is nothing."""
        if self._missing_now is None:
            if not self._attempts:
                return None
            kept = self._best_attempt()
            self._segments = [] if is_silence(self.item, kept) else list(kept.segments)
        return self._outcome(self.item.language or "")

    def _retry(self, decoded: Decoded) -> bool:
        """Prepare the next attempt at the same audio; return whether there is one.

        Speech that is recovered is not sampled for: it may be no speech at all, and then anything could come of it.
        """
        first, options = self._attempts[0], self.item.options
        rung = quality_gate.next_fallback(self._attempts, options)
        if rung is None or (self._missing_now is not None and rung.temperature != first.temperature):
            return False
        new_window = len(self._attempts) == 1 or decoded.full_window != rung.full_window
        self.may_defer = new_window and self.rank > 0 and not options.condition_on_previous_text
        self.reason = "repetitive" if quality_gate.is_repetitive(decoded, options) else "unlikely"
        self.item = replace(
            self.item,
            language=decoded.language,
            temperature=rung.temperature,
            full_window=rung.full_window,
            encoding=first.encoding if first.full_window == rung.full_window else None,
        )
        return True

    def _best_attempt(self) -> Decoded:
        """Return the best of the attempts at ``item``, which all failed."""
        return quality_gate.best_of_failed(self._attempts, self.item.options, partial(uncovered_samples, self.item))

    def _accept(self, decoded: Decoded) -> DecodedChunk | None:
        """Take the decoding's text for the chunk's, and note the speech that it says nothing about."""
        self._segments = [] if is_silence(self.item, decoded) else list(decoded.segments)
        words = [word for segment in self._segments for word in segment.words or ()]
        aligned = all(segment.words is not None for segment in self._segments)
        if aligned and (words or not decoded.full_window):  # where the full window gives no text, nothing is said
            self._missing.extend(missing_speech(self.item, words))
        return self._next_uncovered(decoded.language)

    def _recover(self, missing: UncoveredSpeech, decoded: Decoded) -> DecodedChunk | None:
        """Add the text of missing speech, if there is any, and note what it leaves out in its turn."""
        found = recovered_segments(missing, decoded)
        if found:
            words = [word for segment in found for word in segment.words or ()]
            self._segments = insert(self._segments, missing, found)
            recovered_texts = (*missing.found, decoded.text)
            self._missing.extend(missing_speech(missing.item, words, missing.offset_s, recovered_texts))
        return self._next_uncovered(decoded.language)

    def _next_uncovered(self, language: str) -> DecodedChunk | None:
        """Go on with the next stretch of speech that has no text; return the outcome if there is none."""
        if not self._missing or self._recoveries >= MAX_RECOVERIES:
            return self._outcome(language)
        self._missing_now = self._missing.popleft()
        self._recoveries += 1
        self._attempts.clear()
        self.reason, self.may_defer = RECOVERY_REASON, False
        first_temperature = self.item.options.temperature[0]
        self.item = replace(self._missing_now.item, language=language, temperature=first_temperature)
        return None

    def _outcome(self, language: str) -> DecodedChunk:
        self._attempts.clear()  # an encoding keeps those of its whole batch alive
        return DecodedChunk(tuple(self._segments), language, self._detection, self._decodings)
