"""The quality gate: the check of a decoding against thresholds, and the fallback steps after a rejection.

The rules are those of ``WhisperModel.generate_with_fallback`` in faster-whisper (after Radford et al., 2022, §4.5),
with three additions. The first fallback keeps the temperature and gives the encoder its full window of 30 s. Loops that
the compression ratio misses count as repetitive. Repetitions that last as long as people need to say them are speech.
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
"""Tokens of earlier text that a prompt can hold: half of the decoder's 448, less one for the marker before them."""

PROMPT_RESET_ON_TEMPERATURE = 0.5
"""Text sampled above this temperature does not prompt what follows (faster-whisper's default)."""


class ScoredDecoding(Protocol):
    """One decoding of one chunk, with the values that determine its quality."""

    @property
    def text(self) -> str:
        """The whole decoded text."""
        ...

    @property
    def temperature(self) -> float:
        """0 for beam search, above 0 for sampling."""
        ...

    @property
    def avg_logprob(self) -> float:
        """Mean log-probability of the tokens."""
        ...

    @property
    def compression_ratio(self) -> float:
        """Size of the text divided by its compressed size."""
        ...

    @property
    def no_speech_prob(self) -> float:
        """Probability that there is no speech, 0..1."""
        ...

    @property
    def full_window(self) -> bool:
        """True if the encoder had its full window of 30 s."""
        ...

    @property
    def has_plausible_pace(self) -> bool:
        """True if the words last as long as people need to say them; false if that is not known."""
        ...


AnyDecoding = TypeVar("AnyDecoding", bound=ScoredDecoding)


class GateVerdict(StrEnum):
    """The result of the quality gate for a decoding."""

    ACCEPT = "accept"
    RETRY = "retry"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class FallbackStep:
    """The setting of a decoding: a temperature, and whether the encoder gets its full window."""

    temperature: float
    full_window: bool


def apply_quality_gate(decoding: ScoredDecoding, options: TranscriptionOptions) -> GateVerdict:
    """Check a decoding against the task's thresholds."""
    if _fails(decoding, options) and not _is_confident_silence(decoding, options):
        return GateVerdict.RETRY
    return GateVerdict.SILENCE if is_silence(decoding, options) else GateVerdict.ACCEPT


def is_silence(decoding: ScoredDecoding, options: TranscriptionOptions) -> bool:
    """Return whether a decoding's text is to be dropped because there is most likely no speech.

    A good log-probability outweighs the no-speech probability.
    """
    if options.no_speech_threshold is None or decoding.no_speech_prob <= options.no_speech_threshold:
        return False
    return options.log_prob_threshold is None or decoding.avg_logprob <= options.log_prob_threshold


def is_repetitive(decoding: ScoredDecoding, options: TranscriptionOptions) -> bool:
    """Return whether the text compresses too well or loops; without a threshold, no text is repetitive."""
    threshold = options.compression_ratio_threshold
    return threshold is not None and (decoding.compression_ratio > threshold or has_repetition_loop(decoding.text))


def is_genuine_repetition(decoding: ScoredDecoding, options: TranscriptionOptions) -> bool:
    """Return whether a decoding is most likely repetitive because the speaker is; sampled ones count as loops."""
    is_sampled = decoding.temperature > options.temperature[0]
    likely = decoding.has_plausible_pace and not is_sampled and not _is_unlikely(decoding, options)
    return likely and is_repetitive(decoding, options)


def next_fallback(decodings: Sequence[ScoredDecoding], options: TranscriptionOptions) -> FallbackStep | None:
    """Return the next fallback step, or ``None`` after the last one.

    The first step has the first temperature and the batch's window. The second has the full window, unless the first
    had it. The other temperatures follow, with the first window again: sampling rarely improves what the full window
    could not, and the cost of each sample depends on the length of the window. If both windows give genuine repetition,
    sampling is skipped: higher temperatures make loops likelier.
    """
    if not decodings:
        return FallbackStep(options.temperature[0], full_window=False)
    first = decodings[0]
    if len(decodings) == 1 and not first.full_window:
        return FallbackStep(first.temperature, full_window=True)
    step = len(decodings) - (not first.full_window)
    if step >= len(options.temperature) or all(is_genuine_repetition(decoding, options) for decoding in decodings):
        return None
    return FallbackStep(options.temperature[step], full_window=first.full_window)


def best_of_failed(
    decodings: Sequence[AnyDecoding],
    options: TranscriptionOptions,
    missing: Callable[[AnyDecoding], int] = lambda _: 0,
) -> AnyDecoding:
    """Return the best of several decodings that all failed.

    Among genuine repetitions, this is the one that leaves out least of the speech, then the least repetitive one.
    Otherwise it is the likeliest one that is not repetitive, else the likeliest one.

    Args:
        decodings: decodings of the same audio.
        options: options of the task.
        missing: returns how much speech a decoding leaves out.
    """
    repeated = [decoding for decoding in decodings if is_genuine_repetition(decoding, options)]
    if repeated:
        return min(repeated, key=lambda one: (missing(one), one.compression_ratio))
    varied = [decoding for decoding in decodings if not is_repetitive(decoding, options)]
    return max(varied or decodings, key=lambda decoding: decoding.avg_logprob)


def next_prompt(
    previous_tokens: tuple[int, ...],
    result: ChunkResult,
    temperatures: Sequence[float] = DEFAULT_TEMPERATURES,
) -> tuple[int, ...]:
    """Return the tokens that prompt the chunk after ``result``, for ``condition_on_previous_text``.

    They are the end of all text so far. There are none after a chunk that was sampled above
    ``PROMPT_RESET_ON_TEMPERATURE``, or that failed at all temperatures. Silence does not change the prompt.

    Args:
        previous_tokens: tokens that prompted the chunk itself.
        result: result of the chunk.
        temperatures: temperatures of the task, in order.
    """
    if not result.segments:
        return previous_tokens
    sampled = max(segment.temperature for segment in result.segments) > PROMPT_RESET_ON_TEMPERATURE
    exhausted = result.attempts >= len(temperatures) and temperatures[-1] > PROMPT_RESET_ON_TEMPERATURE
    return () if sampled or exhausted else (previous_tokens + result.tokens)[-PROMPT_TOKENS:]


def _fails(decoding: ScoredDecoding, options: TranscriptionOptions) -> bool:
    return is_repetitive(decoding, options) or _is_unlikely(decoding, options)


def _is_unlikely(decoding: ScoredDecoding, options: TranscriptionOptions) -> bool:
    return options.log_prob_threshold is not None and decoding.avg_logprob < options.log_prob_threshold


def _is_confident_silence(decoding: ScoredDecoding, options: TranscriptionOptions) -> bool:
    """Return whether there is likely no speech and the text is unlikely.

    A higher temperature would only make something up.
    """
    return (
        options.no_speech_threshold is not None
        and decoding.no_speech_prob > options.no_speech_threshold
        and _is_unlikely(decoding, options)
    )
