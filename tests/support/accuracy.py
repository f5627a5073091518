"""The accuracy of a transcript's times and words; counted as in Whisper's paper (Radford et al., 2022, §4.4)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf

import jiwer
from num2words import num2words
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

Span = tuple[float, float]
"""A start and an end, in seconds."""

WITHOUT_SPACES = frozenset({"ja", "zh"})
"""Languages whose errors are counted in characters."""


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """Wrong, missing and extra words (characters for ja and zh), and how many the reference has."""

    errors: int = 0
    length: int = 0

    def __add__(self, other: ErrorCount) -> ErrorCount:
        return ErrorCount(self.errors + other.errors, self.length + other.length)

    @property
    def percent(self) -> float:
        return 100.0 * self.errors / self.length


@dataclass(frozen=True, slots=True)
class Alignment:
    """A transcript beside its reference, in words (characters for ja and zh).

    Attributes:
        trailing_deletions: how many of the reference's last words are missing in a row.
    """

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    trailing_deletions: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def length(self) -> int:
        """Words of the reference."""
        return self.hits + self.substitutions + self.deletions


def align(lang: str, reference: str, hypothesis: str) -> Alignment:
    """Return the alignment of the normalised texts with the fewest errors."""
    compare = jiwer.process_characters if lang in WITHOUT_SPACES else jiwer.process_words
    aligned = compare(normalise(lang, reference), normalise(lang, hypothesis))
    last = aligned.alignments[0][-1]
    trailing = last.ref_end_idx - last.ref_start_idx if last.type == "delete" else 0
    return Alignment(aligned.hits, aligned.substitutions, aligned.deletions, aligned.insertions, trailing)


def count_errors(lang: str, reference: str, hypothesis: str) -> ErrorCount:
    """Compare one transcript with its reference."""
    aligned = align(lang, reference, hypothesis)
    return ErrorCount(aligned.errors, aligned.length)


def errors_by_language(transcripts: Iterable[tuple[str, str, str]]) -> dict[str, ErrorCount]:
    """Sum the errors of (language, reference, hypothesis) per language."""
    counts: dict[str, ErrorCount] = defaultdict(ErrorCount)
    for lang, reference, hypothesis in transcripts:
        counts[lang] += count_errors(lang, reference, hypothesis)
    return dict(sorted(counts.items()))


def distances(spans: Iterable[Span], others: Sequence[Span]) -> list[float]:
    """Return, for both edges of each span, the seconds to the nearest edge of that kind among the others."""
    edges = [(edge, [other[edge] for other in others]) for edge in (0, 1)]
    return [min((abs(span[edge] - time) for time in times), default=inf) for span in spans for edge, times in edges]


def normalise(lang: str, text: str) -> str:
    """Text without case and punctuation; in English without spelling variants; without spaces where there are none."""
    normalised = _digits(_english()(text)) if lang == "en" else BasicTextNormalizer()(_spelled_out(lang, text))
    return ("" if lang in WITHOUT_SPACES else " ").join(normalised.split())


def units(lang: str, text: str) -> list[str]:
    """Return what errors are counted in: the words of the normalised text, or the characters of ja and zh."""
    normalised = normalise(lang, text)
    return list(normalised) if lang in WITHOUT_SPACES else normalised.split()


def _digits(text: str) -> str:
    """Write every number as single digits.

    The English normaliser makes "123" of "one two three" but "one 2 3" of "1, 2, 3"; so counted, one spoken "ten" more
    or less could cost ten errors.
    """
    return re.sub(r"\d", r" \g<0> ", re.sub(r"\bone\b", "1", text))


NUMERALS = {"es": "es", "fr": "fr", "it": "it", "ja": "ja", "pl": "pl", "pt": "pt", "zh": "ja"}
"""Whose words for numbers count for a language; Chinese and Japanese write the small ones alike. None for Hindi."""


def _spelled_out(lang: str, text: str) -> str:
    """Write digits as words: models write "1, 2, 3" where references say "uno dos tres", and neither is an error."""
    if lang not in NUMERALS:
        return text
    return re.sub(r"\d+", lambda number: f" {num2words(int(number[0]), lang=NUMERALS[lang])} ", text)


@cache
def _english() -> EnglishTextNormalizer:
    return EnglishTextNormalizer()
