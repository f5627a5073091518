"""The cost of decoding with given options, in units of a default decoding: for fair shares and for quotas.

Seconds of audio alone say little: 20 candidates at each of ten temperatures occupy a replica forty times as long as the
defaults. The figures are fitted to ``python -m tests.benchmarks.option_costs`` with the model ``base`` (int8) on two
CPU cores, in batches of 8 chunks of 10 s. They differ on other devices, but the same options are expensive there.
``word_timestamps`` costs nothing, since every decoding is aligned anyway; nor do ``language`` and similar options.
"""

from __future__ import annotations

from pipeline.domain.decoding.transcription_options import TranscriptionOptions

ENCODING, FULL_ENCODING = 0.5, 2.0
"""Cost of encoding a chunk in a window of its own length, and in the full window of 30 s."""
BEAM_SEARCH, COST_PER_BEAM = 0.15, 0.07
"""Cost of a beam search, and of each beam."""
SAMPLING, COST_PER_SAMPLE = 0.35, 0.25
"""Cost of sampling, and of each candidate: more than a beam, since all candidates are decoded to their end."""
PROMPT, FULL_PROMPT_CHARACTERS = 1.3, 700
"""Added cost of a full prompt of 223 tokens (`initial_prompt`, `hotwords`), and about how many characters that is."""
CONDITIONED_FACTOR = 2.3
"""Factor for a chunk that is decoded alone, with a prompt of its own."""

MIN_FALLBACK_SHARE = 0.01
"""Share of chunks that go through all fallback steps with the default thresholds: 3 % fail once, few of them twice."""
LEAST_LIKELY, LIKELIEST = -1.0, -0.2
"""Range of the mean log-probabilities of chunks; a threshold in it rejects the share of the range below it."""
LEAST_REPETITIVE, MOST_REPETITIVE = 0.6, 1.6
"""Range of the compression ratios of their texts."""

CHUNK_OVERHEAD_S = 5.0
"""Fixed cost of every chunk, in seconds of audio: its window has at least 8 s."""


def search_cost(options: TranscriptionOptions, temperature: float) -> float:
    """Return the cost of one search for a chunk's text, without its encoding.

    Args:
        options: options of the task.
        temperature: 0 for beam search, above 0 for sampling.
    """
    if temperature > 0:
        return SAMPLING + COST_PER_SAMPLE * options.best_of
    return BEAM_SEARCH + COST_PER_BEAM * options.beam_size


def step_cost(options: TranscriptionOptions, temperature: float, *, encoded: bool) -> float:
    """Return the cost of decoding a chunk once in a window of its own length; 1.0 for the defaults at temperature 0."""
    return _prompt_factor(options) * (search_cost(options, temperature) + (0.0 if encoded else ENCODING))


def search_width(options: TranscriptionOptions, temperature: float) -> int:
    """Return the number of texts decoded side by side for a chunk, which determines the device memory of a search."""
    return options.best_of if temperature > 0 else options.beam_size


def fallback_costs(options: TranscriptionOptions) -> tuple[float, ...]:
    """Return the cost of each possible decoding of a chunk, in the order of ``quality_gate.next_fallback``."""
    first, *others = (search_cost(options, temperature) for temperature in options.temperature)
    return ENCODING + first, FULL_ENCODING + first, *others


def decoded_cost(options: TranscriptionOptions, attempts: int) -> float:
    """Return the cost of a chunk after ``attempts`` decodings, on the scale of ``relative_cost``."""
    return sum(fallback_costs(options)[:attempts]) * _conditioning_factor(options) / _EXPECTED_OF_DEFAULTS


def relative_cost(options: TranscriptionOptions) -> float:
    """Return the expected cost of a second of audio, relative to the default options (1.0).

    A chunk that fails its thresholds goes through the fallback steps; strict thresholds make every chunk fail.
    """
    return _expected(options) * _conditioning_factor(options) / _EXPECTED_OF_DEFAULTS


def chunk_cost_s(duration_s: float, options: TranscriptionOptions) -> float:
    """Return the cost of a chunk in its client's share of the replicas, in seconds of audio with default options."""
    return (duration_s + CHUNK_OVERHEAD_S) * relative_cost(options)


def charged_audio_s(duration_s: float, options: TranscriptionOptions) -> float:
    """Return the seconds that a recording uses of its client's quota: its duration, or more with costly options."""
    return duration_s * max(1.0, relative_cost(options))


def _expected(options: TranscriptionOptions) -> float:
    first, *others = fallback_costs(options)
    return first + _fallback_share(options) * sum(others)


def _fallback_share(options: TranscriptionOptions) -> float:
    """Return the share of chunks that go through all fallback steps."""
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
