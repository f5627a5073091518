"""Error rates as Whisper's paper counts them (Radford et al., 2022, §4.4 and appendix C): normalised, then aligned."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import jiwer
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

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


def count_errors(lang: str, reference: str, hypothesis: str) -> ErrorCount:
    """Compares one transcript with its reference."""
    expected, heard = normalise(lang, reference), normalise(lang, hypothesis)
    align = jiwer.process_characters if lang in WITHOUT_SPACES else jiwer.process_words
    aligned = align(expected, heard)
    missed = aligned.substitutions + aligned.deletions
    return ErrorCount(missed + aligned.insertions, missed + aligned.hits)


def errors_by_language(transcripts: Iterable[tuple[str, str, str]]) -> dict[str, ErrorCount]:
    """Sums of (language, reference, hypothesis) per language."""
    counts: dict[str, ErrorCount] = defaultdict(ErrorCount)
    for lang, reference, hypothesis in transcripts:
        counts[lang] += count_errors(lang, reference, hypothesis)
    return dict(sorted(counts.items()))


def normalise(lang: str, text: str) -> str:
    """Text without case, punctuation and, in English, spelling variants; without spaces where a language has none."""
    normalised: str = _english()(text) if lang == "en" else BasicTextNormalizer()(text)
    return normalised.replace(" ", "") if lang in WITHOUT_SPACES else " ".join(normalised.split())


@cache
def _english() -> EnglishTextNormalizer:
    return EnglishTextNormalizer()
