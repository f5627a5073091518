"""Finding text in which the model repeats the same words in a loop.

The compression ratio detects long loops. It misses the loop of a short clip, and a loop at the end of much good text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from pipeline.domain.decoding.writing_systems import is_unspaced

WORD_LIMIT = 6
"""Times in a row from which one word is a loop: "no, no, no", and then three times more."""

PHRASE_LIMIT = 4
"""Times in a row from which a phrase of several words is a loop: said once, and then three times more."""

SYLLABLE_LIMIT = 7
"""Times in a row from which one to three characters of a script without spaces are a loop: laughter is fewer."""

LONGEST_SYLLABLES = 3


def has_repetition_loop(text: str) -> bool:
    """Return whether a word or phrase is repeated without a break, three times more often than people would."""
    units = tuple(_split_words(text))
    unspaced = sum(len(unit) == 1 and is_unspaced(unit) for unit in units) * 2 > len(units)
    longest = len(units) // PHRASE_LIMIT
    return any(_repeats(units, length) >= _limit(length, unspaced) for length in range(1, longest + 1))


def _limit(length: int, unspaced: bool) -> int:
    if unspaced:
        return SYLLABLE_LIMIT if length <= LONGEST_SYLLABLES else PHRASE_LIMIT
    return WORD_LIMIT if length == 1 else PHRASE_LIMIT


def _repeats(units: Sequence[str], length: int) -> int:
    """Return the most times in a row that any phrase of ``length`` units is repeated."""
    run = most = 0
    for earlier, later in zip(units, units[length:], strict=False):
        run = run + 1 if earlier == later else 0
        most = max(most, run)
    return most // length + 1


def _split_words(text: str) -> Iterator[str]:
    """Yield words without punctuation, or single characters of a script without spaces."""
    word = ""
    for character in text.casefold():
        if is_unspaced(character) or unicodedata.category(character)[0] not in "LMN":
            if word:
                yield word
            word = ""
            if is_unspaced(character):
                yield character
        else:
            word += character
    if word:
        yield word
