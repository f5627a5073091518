"""Whether text fits into the time it is said to take: people repeat themselves, models that loop do so in no time."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.decoding.transcript import Word
from pipeline.domain.decoding.writing_systems import count_characters

WORD_S, LETTER_S, DIGIT_S, SYLLABLE_S = 0.03, 0.015, 0.04, 0.04
"""Seconds that even a hurried speaker takes: for any word, and for each of its letters, its digits, or its characters
of a script without blanks."""

USUAL_FACTOR = 2.5
"""How many times as long a word usually takes."""

RUSHED_SHARE = 0.2
"""More words than this share are too short only where the text was not said: an alignment makes a few short words."""

LONGEST_WORD = 50
"""Characters of the longest word that anybody says: a longer one is a loop within a word."""


def has_plausible_pace(words: Sequence[Word]) -> bool:
    """Return whether the words follow each other no faster than people speak; without words, they don't."""
    rushed = sum(word.end - word.start < _shortest_s(word.word) for word in words)
    longest = max((len(word.word) for word in words), default=LONGEST_WORD + 1)
    return longest <= LONGEST_WORD and rushed <= RUSHED_SHARE * len(words)


def _shortest_s(text: str) -> float:
    counts = count_characters(text)
    return WORD_S + LETTER_S * counts.letters + DIGIT_S * counts.digits + SYLLABLE_S * counts.syllables


def spoken_s(text: str) -> float:
    """Return the seconds that text usually takes to say, roughly."""
    return USUAL_FACTOR * _shortest_s(text)
