"""Whether a decoding is good enough, and how to decode again when it isn't.

The rules are those of ``WhisperModel.generate_with_fallback`` in faster-whisper (after Radford et al., 2022, §4.5),
with three additions: the first retry keeps the temperature and gives the encoder its full 30 s window, loops that the
compression ratio misses count as repetitive, and repetitions that take as long as people take to say them are speech.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from pipeline.domain.decoding.repetition import has_repetition_loop
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.decoding.transcription_options import DEFAULT_TEMPERATURES, TranscriptionOptions

PROMPT_TOKENS = 223
"""Tokens of earlier text that fit into a prompt: half of the decoder's 448, less one for the marker before them."""

PROMPT_RESET_ON_TEMPERATURE = 0.5
"""Text sampled above this temperature does not prompt what follows (faster-whisper's default)."""


class ScoredDecoding(Protocol):
    """One decoding of one chunk, as far as its quality goes."""

    @property
    def text(self) -> str:
        """All that was heard."""
        ...

    @property
    def temperature(self) -> float:
        """0 for beam search, above it for sampling."""
        ...

    @property
    def avg_logprob(self) -> float:
        """Mean log-probability of the tokens."""
        ...

    @property
    def compression_ratio(self) -> float:
        """Size of the text over its size compressed."""
        ...

    @property
    def no_speech_prob(self) -> float:
        """How likely there is no speech, 0..1."""
        ...

    @property
    def full_window(self) -> bool:
        """Whether the encoder had its full 30 s."""
        ...

    @property
    def has_plausible_pace(self) -> bool:
        """Whether its words take as long as people take to say them; ``False`` where that is not known."""
        ...


AnyDecoding = TypeVar("AnyDecoding", bound=ScoredDecoding)


class GateVerdict(StrEnum):
    """What becomes of an attempt."""

    ACCEPT = "accept"
    RETRY = "retry"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class FallbackStep:
    """How to decode next: a temperature, and whether the encoder gets its full window."""

    temperature: float
    full_window: bool


def apply_quality_gate(attempt: ScoredDecoding, options: TranscriptionOptions) -> GateVerdict:
    """Holds an attempt against the task's thresholds."""
    if _fails(attempt, options) and not _is_confident_silence(attempt, options):
        return GateVerdict.RETRY
    return GateVerdict.SILENCE if is_silence(attempt, options) else GateVerdict.ACCEPT


def is_silence(attempt: ScoredDecoding, options: TranscriptionOptions) -> bool:
    """Whether the attempt's text is to be dropped because there is most likely no speech.

    A good log-probability outweighs the no-speech probability.
    """
    if options.no_speech_threshold is None or attempt.no_speech_prob <= options.no_speech_threshold:
        return False
    return options.log_prob_threshold is None or attempt.avg_logprob <= options.log_prob_threshold


def is_repetitive(attempt: ScoredDecoding, options: TranscriptionOptions) -> bool:
    """Whether the text compresses too well or loops; without a threshold, nothing is repetitive."""
    threshold = options.compression_ratio_threshold
    return threshold is not None and (attempt.compression_ratio > threshold or has_repetition_loop(attempt.text))


def is_genuine_repetition(attempt: ScoredDecoding, options: TranscriptionOptions) -> bool:
    """Return whether an attempt is most likely repetitive because the speaker is; sampled ones are loops."""
    is_sampled = attempt.temperature > options.temperature[0]
    likely = attempt.has_plausible_pace and not is_sampled and not _is_unlikely(attempt, options)
    return likely and is_repetitive(attempt, options)


def next_fallback(attempts: Sequence[ScoredDecoding], options: TranscriptionOptions) -> FallbackStep | None:
    """The next step of the ladder, or ``None`` at its end.

    First temperature with the window it happened to get, then with the full window if that was not full, then the
    other temperatures, with the first window again: what the full one could not mend, sampling rarely does, and each of
    its samples costs by the window's length. What both windows take for speech that repeats itself is not sampled for:
    at higher temperatures, loops are likelier.
    """
    if not attempts:
        return FallbackStep(options.temperature[0], full_window=False)
    first = attempts[0]
    if len(attempts) == 1 and not first.full_window:
        return FallbackStep(first.temperature, full_window=True)
    climbed = len(attempts) - (not first.full_window)
    if climbed >= len(options.temperature) or all(is_genuine_repetition(attempt, options) for attempt in attempts):
        return None
    return FallbackStep(options.temperature[climbed], full_window=first.full_window)


def best_of_failed(
    attempts: Sequence[AnyDecoding],
    options: TranscriptionOptions,
    missing: Callable[[AnyDecoding], int] = lambda _: 0,
) -> AnyDecoding:
    """Return the best of attempts that all failed.

    Of those that are repetitive because the speech is, the one that leaves least of the speech out, and of these the
    least repetitive; else the likeliest one that is not repetitive, else the likeliest one.

    Args:
        attempts: at the same audio.
        options: the task's.
        missing: how much speech an attempt leaves out.
    """
    repeated = [attempt for attempt in attempts if is_genuine_repetition(attempt, options)]
    if repeated:
        return min(repeated, key=lambda one: (missing(one), one.compression_ratio))
    varied = [attempt for attempt in attempts if not is_repetitive(attempt, options)]
    return max(varied or attempts, key=lambda attempt: attempt.avg_logprob)


def next_prompt(
    previous_tokens: tuple[int, ...],
    result: ChunkResult,
    temperatures: Sequence[float] = DEFAULT_TEMPERATURES,
) -> tuple[int, ...]:
    """The tokens that prompt the chunk after ``result``, for ``condition_on_previous_text``.

    The tail of all text so far; nothing after a chunk that had to be sampled above ``PROMPT_RESET_ON_TEMPERATURE``, or
    that no temperature of the ladder could save. Silence changes nothing.

    Args:
        previous_tokens: what prompted the chunk itself.
        result: what came of it.
        temperatures: the task's ladder.
    """
    if not result.segments:
        return previous_tokens
    sampled = max(segment.temperature for segment in result.segments) > PROMPT_RESET_ON_TEMPERATURE
    exhausted = result.attempts >= len(temperatures) and temperatures[-1] > PROMPT_RESET_ON_TEMPERATURE
    return () if sampled or exhausted else (previous_tokens + result.tokens)[-PROMPT_TOKENS:]


def _fails(attempt: ScoredDecoding, options: TranscriptionOptions) -> bool:
    return is_repetitive(attempt, options) or _is_unlikely(attempt, options)


def _is_unlikely(attempt: ScoredDecoding, options: TranscriptionOptions) -> bool:
    return options.log_prob_threshold is not None and attempt.avg_logprob < options.log_prob_threshold


def _is_confident_silence(attempt: ScoredDecoding, options: TranscriptionOptions) -> bool:
    """Likely without speech and unlikely as text: a higher temperature would only make something up."""
    return (
        options.no_speech_threshold is not None
        and attempt.no_speech_prob > options.no_speech_threshold
        and _is_unlikely(attempt, options)
    )
