"""What decoding costs with given options, in units of a default decoding: for shares of the replicas and for quotas.

Seconds of audio alone say little: 20 candidates at each of ten temperatures take a replica forty times as long as the
defaults do. The figures are fitted to ``python -m tests.benchmarks.option_costs`` with the model ``base`` (int8) on two
CPU cores, in batches of 8 chunks of 10 s; on other devices they differ, but what is dear there is dear here.
``word_timestamps`` costs nothing, since every decoding is aligned anyway, nor do ``language`` and its like.
"""

from __future__ import annotations

from pipeline.domain.decoding.transcription_options import TranscriptionOptions

ENCODING, FULL_ENCODING = 0.5, 2.0
"""Encoding a chunk in a window of its own length, and in the model's 30 s."""
BEAM_SEARCH, COST_PER_BEAM = 0.15, 0.07
"""A search with beams, and what each of them adds."""
SAMPLING, COST_PER_SAMPLE = 0.35, 0.25
"""Sampling, and what each candidate adds: more than a beam, since all are decoded to their end."""
PROMPT, FULL_PROMPT_CHARACTERS = 1.3, 700
"""What a full prompt of 223 tokens adds to a decoding (`initial_prompt`, `hotwords`), and about how long that is."""
CONDITIONED_FACTOR = 2.3
"""How many times as much a chunk costs that is decoded alone, with a prompt of its own."""

MIN_FALLBACK_SHARE = 0.01
"""Share of chunks that climb the whole ladder with the default thresholds: 3 % fail once, few of them twice."""
LEAST_LIKELY, LIKELIEST = -1.0, -0.2
"""Mean log-probabilities between which chunks of speech lie: a threshold there fails so many of them."""
LEAST_REPETITIVE, MOST_REPETITIVE = 0.6, 1.6
"""Compression ratios between which their texts lie."""

CHUNK_OVERHEAD_S = 5.0
"""What a chunk costs however short it is, in seconds of audio: its window has 8 s at least."""


def search_cost(options: TranscriptionOptions, temperature: float) -> float:
    """Return the cost of one search for a chunk's text, its encoding not included.

    Args:
        options: the task's.
        temperature: 0 for beams, above it for samples.
    """
    if temperature > 0:
        return SAMPLING + COST_PER_SAMPLE * options.best_of
    return BEAM_SEARCH + COST_PER_BEAM * options.beam_size


def step_cost(options: TranscriptionOptions, temperature: float, *, encoded: bool) -> float:
    """Return the cost of decoding a chunk once in a window of its own length; 1.0 for the defaults at temperature 0."""
    return _prompt_factor(options) * (search_cost(options, temperature) + (0.0 if encoded else ENCODING))


def search_width(options: TranscriptionOptions, temperature: float) -> int:
    """Return how many texts of a chunk are decoded side by side: what a search takes of the device's memory."""
    return options.best_of if temperature > 0 else options.beam_size


def fallback_costs(options: TranscriptionOptions) -> tuple[float, ...]:
    """Return the cost of each decoding that a chunk may get, in order, as ``domain.quality.next_fallback`` has them."""
    first, *others = (search_cost(options, temperature) for temperature in options.temperature)
    return ENCODING + first, FULL_ENCODING + first, *others


def decoded_cost(options: TranscriptionOptions, attempts: int) -> float:
    """Return what a chunk has cost that was decoded so many times, by the measure of ``relative_cost``."""
    return sum(fallback_costs(options)[:attempts]) * _conditioning_factor(options) / _EXPECTED_OF_DEFAULTS


def relative_cost(options: TranscriptionOptions) -> float:
    """Return how many times as much as with the defaults a second of audio is likely to cost; 1.0 for the defaults.

    A chunk that fails its thresholds climbs the ladder of temperatures; strict thresholds let all fail.
    """
    return _expected(options) * _conditioning_factor(options) / _EXPECTED_OF_DEFAULTS


def chunk_cost_s(duration_s: float, options: TranscriptionOptions) -> float:
    """Return what a chunk counts for in its client's share of the replicas, in seconds of audio at the defaults."""
    return (duration_s + CHUNK_OVERHEAD_S) * relative_cost(options)


def charged_audio_s(duration_s: float, options: TranscriptionOptions) -> float:
    """Return the seconds that a recording takes from its client's quota: dear options take more, cheap ones no less."""
    return duration_s * max(1.0, relative_cost(options))


def _expected(options: TranscriptionOptions) -> float:
    first, *others = fallback_costs(options)
    return first + _fallback_share(options) * sum(others)


def _fallback_share(options: TranscriptionOptions) -> float:
    """Share of chunks that climb the whole ladder."""
    likely, ratio = options.log_prob_threshold, options.compression_ratio_threshold
    unlikely = 0.0 if likely is None else _fraction_between(likely, LEAST_LIKELY, LIKELIEST)
    repetitive = 0.0 if ratio is None else 1 - _fraction_between(ratio, LEAST_REPETITIVE, MOST_REPETITIVE)
    return max(MIN_FALLBACK_SHARE, unlikely, repetitive)


def _fraction_between(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _conditioning_factor(options: TranscriptionOptions) -> float:
    return CONDITIONED_FACTOR if options.condition_on_previous_text else _prompt_factor(options)


def _prompt_factor(options: TranscriptionOptions) -> float:
    characters = len(options.initial_prompt or "") + len(options.hotwords or "")
    return 1 + PROMPT * min(1.0, characters / FULL_PROMPT_CHARACTERS)


_EXPECTED_OF_DEFAULTS = _expected(TranscriptionOptions())
