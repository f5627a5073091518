"""Cleaning the names that clients give their files.

The names are only displayed and never opened, so every meaningful character may stay.
"""

from __future__ import annotations

import re
import unicodedata

from pipeline.domain.text.graphemes import shortened

MAX_FILE_NAME = 255
"""Longest file name, in characters."""
MAX_EXTENSION = 16

JOINERS = "\u200c\u200d"
"""Zero width non-joiner and joiner: Persian and Indic spelling needs them, and emoji are composed with them."""

TAGS = 0xE0000
"""First character of the plane whose characters are never visible on their own."""
_NONCHARACTERS = frozenset(map(chr, range(0xFDD0, 0xFDF0)))
_SHOWN_FORMATS = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd\U000e0020-\U000e007f]")
"""Visible format characters: signs over Arabic, Syriac and Kaithi numbers, and the letters in flags of regions."""
_TAG_RUN = re.compile("(\U0001f3f4[\U000e0020-\U000e007f]+)|[\U000e0020-\U000e007f]+")
"""Letters of a flag; without the flag before them they are invisible text."""
_REPEATED_JOINERS = re.compile(f"([{JOINERS}])[{JOINERS}]+")


def plain_file_name(name: str) -> str:
    """Return the last part of a path, shortened, without characters that are invisible or reorder the text.

    Shortening keeps the extension and cuts between grapheme clusters.
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    seen = without_invisible(last).strip()
    if not seen.strip("."):
        return ""
    if len(seen) <= MAX_FILE_NAME:
        return seen
    stem, dot, extension = seen.rpartition(".")
    if not dot or not 0 < len(extension) <= MAX_EXTENSION:
        return shortened(seen, MAX_FILE_NAME).strip()
    return f"{shortened(stem, MAX_FILE_NAME - len(extension) - 1).strip()}.{extension}"


def without_invisible(text: str, instead: str = "") -> str:
    """Return a text in NFC without controls, bidirectional formatting and surrogates.

    Args:
        text: any text.
        instead: replacement for each removed character.
    """
    shown = "".join(
        character if character in JOINERS or _is_visible(character) else instead
        for character in unicodedata.normalize("NFC", text)
    )
    shown = _TAG_RUN.sub(lambda run: run[1] or instead, _REPEATED_JOINERS.sub(r"\1", shown))
    return "".join(
        character
        for before, character, after in zip(f" {shown}", shown, f"{shown[1:]} ", strict=False)
        if character not in JOINERS or _joins(before, after)
    )


def _joins(before: str, after: str) -> bool:
    """Return whether a joiner between two characters has an effect; after a mark it shapes the letter before that."""
    return _kind(before) == "M" or (_kind(before) in "LSN" and _kind(after) in "LMSN")


def _kind(character: str) -> str:
    """Return the first letter of a character's category.

    For a character that Python's tables do not contain yet this is "S", an emoji's.
    """
    category = unicodedata.category(character)
    return "S" if category == "Cn" else category[0]


def _is_visible(character: str) -> bool:
    """Return whether a character is visible or a blank.

    A character that Python's tables do not contain yet counts as visible.
    """
    category = unicodedata.category(character)
    if category == "Cn":
        return ord(character) < TAGS and ord(character) & 0xFFFE != 0xFFFE and character not in _NONCHARACTERS
    return character.isprintable() or category == "Zs" or _SHOWN_FORMATS.fullmatch(character) is not None
