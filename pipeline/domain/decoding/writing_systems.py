"""What scripts differ in, as far as it matters to how long text takes to say."""

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
    """How many characters of a text are said, by kind.

    Attributes:
        letters: of scripts that put blanks between words.
        syllables: characters of scripts that don't.
        digits: each of which may stand for a word.
    """

    letters: int
    syllables: int
    digits: int


def is_unspaced(character: str) -> bool:
    """Return whether the character is a letter of a script that is written without blanks."""
    point = ord(character)
    return unicodedata.category(character)[0] in "LMN" and any(low <= point <= high for low, high in _UNSPACED)


def count_characters(text: str) -> CharacterCounts:
    """Count the characters that are said."""
    syllables = sum(map(is_unspaced, text))
    return CharacterCounts(sum(map(str.isalpha, text)) - syllables, syllables, sum(map(str.isdigit, text)))


def has_words(text: str) -> bool:
    """Return whether the text holds anything that can be said: a letter or a digit of any script."""
    return any(map(str.isalnum, text))


def is_punctuation(text: str) -> bool:
    """Return whether the text holds nothing but punctuation and blanks; symbols such as notes and emoji are more."""
    return all(unicodedata.category(character)[0] in "PZC" for character in text)
