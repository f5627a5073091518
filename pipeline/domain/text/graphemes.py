"""Dividing text into grapheme clusters and into the parts between possible line breaks.

The boundaries come from ICU's rules and dictionaries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from icu4py.breakers import BaseBreaker, CharacterBreaker

_SURROGATE = re.compile("[\ud800-\udfff]")
_ANY = "en"
"""Any locale will do: grapheme clusters are the same in every one."""


def graphemes(text: str) -> Iterator[str]:
    """Yield the grapheme clusters of a text: letters with their marks, emoji of several characters, flags.

    They are the extended grapheme clusters of Unicode Standard Annex 29.
    """
    return pieces(text, CharacterBreaker, _ANY)


def pieces(text: str, breaker: type[BaseBreaker], locale: str) -> Iterator[str]:
    """Yield the parts between a breaker's boundaries. Lone surrogates, which ICU does not accept, are kept."""
    position = 0
    for part in breaker(_SURROGATE.sub("\ufffd", text), locale):
        yield text[position : position + len(part)]
        position += len(part)


def shortened(text: str, limit: int) -> str:
    """Return the first clusters that have at most ``limit`` characters together.

    If the first cluster alone is longer, return its first ``limit`` characters.
    """
    if len(text) <= limit:
        return text
    kept = ""
    for cluster in graphemes(text):
        if len(kept) + len(cluster) > limit:
            break
        kept += cluster
    return kept or text[:limit]
