"""Properties of scripts that determine how long text takes to say."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x109F),  # Tibetan, Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x30FF),  # CJK radicals, kana
    (0x3400, 0x9FFF),  # CJK ideographs
    (0xF900, 0xFAFF),  # CJK compatibility ideographs
    (0x20000, 0x3FFFF),  # CJK extensions
)


@dataclass(frozen=True, slots=True)
class CharacterCounts:
    """The number of a text's spoken characters, by kind.

    Attributes:
        letters: letters of scripts that put blanks between words.
        syllables: characters of scripts that do not.
        digits: digits, each of which may stand for a word.
    """

    letters: int
    syllables: int
    digits: int


def is_unspaced(character: str) -> bool:
    """Return whether the character is a letter of a script that is written without blanks."""
    point = ord(character)
    return unicodedata.category(character)[0] in "LMN" and any(low <= point <= high for low, high in _UNSPACED)


def count_characters(text: str) -> CharacterCounts:
    """Count the characters that are spoken."""
    syllables = sum(map(is_unspaced, text))
    return CharacterCounts(sum(map(str.isalpha, text)) - syllables, syllables, sum(map(str.isdigit, text)))


def has_words(text: str) -> bool:
    """Return whether the text holds anything that can be said: a letter or a digit of any script."""
    return any(map(str.isalnum, text))


def is_punctuation(text: str) -> bool:
    """Return whether the text holds nothing but punctuation and blanks; symbols such as notes and emoji are neither."""
    return all(unicodedata.category(character)[0] in "PZC" for character in text)
