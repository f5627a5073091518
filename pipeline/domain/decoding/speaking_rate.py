"""Checking whether text fits its duration: people need time to repeat themselves, a looping model does not."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.decoding.transcript import Word
from pipeline.domain.decoding.writing_systems import count_characters

WORD_S, LETTER_S, DIGIT_S, SYLLABLE_S = 0.03, 0.015, 0.04, 0.04
"""Seconds that even a fast speaker needs: for any word, and for each of its letters, its digits, or its characters of a
script without blanks."""

USUAL_FACTOR = 2.5
"""Usual duration of a word, as a multiple of the shortest."""

RUSHED_SHARE = 0.2
"""Largest share of words that may be too short: an alignment makes a few short words in genuine speech as well."""

LONGEST_WORD = 50
"""Characters of the longest word that people say; a longer one is a loop within a word."""


def has_plausible_pace(words: Sequence[Word]) -> bool:
    """Return whether the words follow each other no faster than people speak; false without words."""
    rushed = sum(word.end - word.start < _shortest_s(word.word) for word in words)
    longest = max((len(word.word) for word in words), default=LONGEST_WORD + 1)
    return longest <= LONGEST_WORD and rushed <= RUSHED_SHARE * len(words)


def _shortest_s(text: str) -> float:
    counts = count_characters(text)
    return WORD_S + LETTER_S * counts.letters + DIGIT_S * counts.digits + SYLLABLE_S * counts.syllables


def spoken_s(text: str) -> float:
    """Return roughly the seconds that people usually need to say the text."""
    return USUAL_FACTOR * _shortest_s(text)
