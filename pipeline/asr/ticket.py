"""A chunk's way through the batcher: its place in line, its attempts, and what is left to decode of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from pipeline.asr.engine import Decoded, DecodeItem
from pipeline.domain import quality
from pipeline.domain.coverage import MIN_UNCOVERED, MIN_UNCOVERED_TRANSLATED, has_words, is_stretched, uncovered
from pipeline.domain.options import TaskType
from pipeline.domain.quality import Verdict
from pipeline.domain.segments import without_words
from pipeline.domain.timeline import shift
from pipeline.domain.transcript import LanguageDetection, Segment, Word

MAX_RECOVERIES = 16
"""Stretches of one chunk that are decoded on their own because its text says nothing about them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a chunk.

    Attributes:
        segments: in seconds from the chunk's start; empty for silence.
        language: asked for or detected.
        detection: set where the language was detected.
        attempts: decodings it took.
    """

    segments: tuple[Segment, ...]
    language: str
    detection: LanguageDetection | None
    attempts: int


@dataclass(frozen=True, slots=True, eq=False)
class Missing:
    """Speech of a chunk that its text says nothing about.

    Attributes:
        item: the speech, to be decoded on its own.
        offset_s: where it begins in the chunk.
        stretched: words that were aligned to it although it holds more than them.
    """

    item: DecodeItem
    offset_s: float
    stretched: tuple[Word, ...]


@dataclass(slots=True, eq=False)
class Ticket:
    """A chunk in the batcher's hands.

    Attributes:
        task_id: whose it is.
        rank: its priority; 0 is served first.
        age: orders chunks of one rank; kept when the chunk is decoded again.
        item: what is to be decoded next.
        key: ``Engine.batch_key`` of the item.
        frames: window the item needs.
        reason: why it is to be decoded again: ``repetitive``, ``unlikely`` or ``uncovered``.
        wants_company: whether others that are decoded again in its way are worth waiting for: not where someone waits
            for it, be it a client or the task's next chunk, and not at every temperature, since those it waited
            for go up the ladder with it.
        patient_until: see ``forming.Candidate``.
        future: gets the ``Outcome`` or the error.
    """

    task_id: int
    rank: int
    age: tuple[float, int]
    item: DecodeItem
    key: Hashable
    frames: int
    reason: str = ""
    wants_company: bool = False
    patient_until: int = 0
    future: Future[Outcome] = field(default_factory=Future)
    _attempts: list[Decoded] = field(default_factory=list)
    _segments: list[Segment] = field(default_factory=list)
    _missing: deque[Missing] = field(default_factory=deque)
    _missing_now: Missing | None = None
    _recoveries: int = 0
    _detection: LanguageDetection | None = None
    _decodings: int = 0

    @property
    def order(self) -> tuple[int, float, int]:
        """Sorts tickets: rank, then age."""
        return self.rank, *self.age

    def take(self, decoded: Decoded, *, gate: bool) -> Outcome | None:
        """Record one more decoding of ``item``.

        Args:
            decoded: of ``item``.
            gate: whether one that fails the task's thresholds is worth another.

        Returns:
            What came of the chunk; ``None`` if ``item``, changed, is to be decoded next.
        """
        self._decodings += 1
        self._attempts.append(replace(decoded, encoding=None) if self._attempts else decoded)
        self._detection = self._detection or decoded.detection
        verdict = quality.judge(decoded, self.item.options)
        if gate and verdict is Verdict.RETRY and self._retry(decoded):
            return None
        kept = self._best() if verdict is Verdict.RETRY else decoded
        if self._missing_now is not None:
            return self._recover(self._missing_now, kept)
        return self._keep(kept)

    def give_up(self) -> Outcome | None:
        """Finish with what was transcribed before the model failed on ``item``; ``None`` if that is nothing."""
        if self._missing_now is None:
            if not self._attempts:
                return None
            kept = self._best()
            self._segments += () if self._is_silence(kept) else kept.segments
        return self._outcome(self.item.language or "")

    def _retry(self, decoded: Decoded) -> bool:
        """Prepare the next attempt at the same audio; return whether there is one.

        Speech that is recovered is not sampled for: it may be no speech at all, and then anything could come of it.
        """
        first, options = self._attempts[0], self.item.options
        rung = quality.next_rung(self._attempts, options)
        if rung is None or (self._missing_now is not None and rung.temperature != first.temperature):
            return False
        new_window = len(self._attempts) == 1 or decoded.full_window != rung.full_window
        self.wants_company = new_window and self.rank > 0 and not options.condition_on_previous_text
        self.reason = "repetitive" if quality.is_repetitive(decoded, options) else "unlikely"
        self.item = replace(
            self.item,
            language=decoded.language,
            temperature=rung.temperature,
            full_window=rung.full_window,
            encoding=first.encoding if first.full_window == rung.full_window else None,
        )
        return True

    def _best(self) -> Decoded:
        """Return the best of the attempts at ``item``, which all failed."""

        def missing(attempt: Decoded) -> int:
            return sum(stretch.samples for stretch in uncovered(self.item.speech or (), attempt.words))

        return quality.best(self._attempts, self.item.options, missing)

    def _keep(self, decoded: Decoded, offset_s: float = 0.0) -> Outcome | None:
        """Add the decoding's text to the chunk's, and note the speech that it says nothing about."""
        segments = () if self._is_silence(decoded) else tuple(shift(segment, offset_s) for segment in decoded.segments)
        self._segments += segments
        words = [word for segment in segments for word in segment.words or ()]
        aligned = all(segment.words is not None for segment in segments)
        if aligned and (words or not decoded.full_window):  # where the full window gives no text, nothing is said
            self._missing += self._missing_from(words, offset_s)
        return self._next(decoded.language)

    def _is_silence(self, decoded: Decoded) -> bool:
        """Return whether the decoding's text is made up: of audio without speech, only text that passes is kept."""
        options = self.item.options
        unspoken = self.item.speech == () and quality.judge(decoded, options) is Verdict.RETRY
        return unspoken or quality.is_silence(decoded, options)

    def _missing_from(self, words: Sequence[Word], offset_s: float) -> Iterator[Missing]:
        translated = self.item.options.task_type is TaskType.TRANSLATE
        heard = [replace(word, start=word.start - offset_s, end=word.end - offset_s) for word in words]
        for stretch in uncovered(
            self.item.speech or (), heard, MIN_UNCOVERED_TRANSLATED if translated else MIN_UNCOVERED
        ):
            start_s, end_s = offset_s + stretch.start_s, offset_s + stretch.end_s
            yield Missing(
                item=replace(self.item.part(stretch), full_window=not words),
                offset_s=start_s,
                stretched=tuple(
                    word for word in words if is_stretched(word) and start_s < (word.start + word.end) / 2 < end_s
                ),
            )

    def _recover(self, missing: Missing, decoded: Decoded) -> Outcome | None:
        """Add the text of missing speech, in place of the words that were stretched over it, if it is good and more."""
        options = self.item.options
        good = quality.judge(decoded, options) is Verdict.ACCEPT or quality.is_repeated_speech(decoded, options)
        if not good or sum(has_words(word.word) for word in decoded.words) <= len(missing.stretched):
            return self._next(self.item.language or "")
        self._segments = list(without_words(self._segments, missing.stretched))
        return self._keep(decoded, missing.offset_s)

    def _next(self, language: str) -> Outcome | None:
        """Go on with the next stretch of speech that has no text; return the outcome if there is none."""
        if not self._missing or self._recoveries >= MAX_RECOVERIES:
            return self._outcome(language)
        self._missing_now = self._missing.popleft()
        self._recoveries += 1
        self._attempts.clear()
        self.reason, self.wants_company = "uncovered", False
        first_temperature = self.item.options.temperature[0]
        self.item = replace(self._missing_now.item, language=language, temperature=first_temperature)
        return None

    def _outcome(self, language: str) -> Outcome:
        ordered = sorted(self._segments, key=lambda segment: segment.start)
        return Outcome(tuple(ordered), language, self._detection, self._decodings)
