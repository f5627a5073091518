"""A chunk's way through the batcher: its place in line, its attempts, and what is left to decode of it."""

from __future__ import annotations

from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from pipeline.asr.engine import Decoded, DecodeItem
from pipeline.domain import quality
from pipeline.domain.quality import Verdict
from pipeline.domain.timeline import shift
from pipeline.domain.transcript import LanguageDetection, Segment


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
        reason: why it is to be decoded again: ``repetitive``, ``unlikely`` or ``broken_off``.
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
    _offset_s: float = 0.0
    _detection: LanguageDetection | None = None
    _decodings: int = 0

    @property
    def order(self) -> tuple[int, float, int]:
        """Sorts tickets: rank, then age."""
        return self.rank, *self.age

    def take(self, decoded: Decoded, *, gate: bool) -> Outcome | None:
        """Takes in one more decoding.

        Args:
            decoded: of ``item``.
            gate: whether one that fails the task's thresholds is worth another.

        Returns:
            What came of the chunk; ``None`` if ``item``, changed, is to be decoded again.
        """
        self._decodings += 1
        self._attempts.append(replace(decoded, encoding=None) if self._attempts else decoded)
        first = self._attempts[0]  # whose window is used again
        self._detection = self._detection or decoded.detection
        options = self.item.options
        kept = decoded
        if gate and quality.judge(decoded, options) is Verdict.RETRY:
            rung = quality.next_rung(self._attempts, options)
            if rung is not None:
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
                return None
            kept = quality.best(self._attempts, options)
        return self._keep(kept)

    def give_up(self) -> Outcome | None:
        """The model failed on ``item``: what was heard before that, or ``None`` if that is nothing."""
        if self._attempts:
            kept = quality.best(self._attempts, self.item.options)
            return self._keep(replace(kept, resume_s=None))
        if self._segments:
            return Outcome(tuple(self._segments), self.item.language or "", self._detection, self._decodings)
        return None

    def _keep(self, decoded: Decoded) -> Outcome | None:
        if not quality.is_silence(decoded, self.item.options):
            self._segments += (shift(segment, self._offset_s) for segment in decoded.segments)
        if decoded.resume_s is None:
            return Outcome(tuple(self._segments), decoded.language, self._detection, self._decodings)
        # faster-whisper's loop, too, goes on where the model broke off, as if a new window began there.
        self.reason, self.wants_company = "broken_off", False
        self._offset_s += decoded.resume_s
        self._attempts.clear()
        self.item = replace(
            self.item.after(decoded.resume_s),
            language=decoded.language,
            temperature=self.item.options.temperature[0],
            full_window=False,
        )
        return None
