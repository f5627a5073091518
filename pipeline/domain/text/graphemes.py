"""Texts in the pieces that people see, and in those that a line may be broken into (ICU's rules and dictionaries)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from icu4py.breakers import BaseBreaker, CharacterBreaker

_SURROGATE = re.compile("[\ud800-\udfff]")
_ANY = "en"
"""Clusters are the same in every locale."""


def graphemes(text: str) -> Iterator[str]:
    """Yield the clusters of a text: letters with their marks, emoji of several characters, flags.

    Extended grapheme clusters of Unicode Standard Annex 29.
    """
    return pieces(text, CharacterBreaker, _ANY)


def pieces(text: str, breaker: type[BaseBreaker], locale: str) -> Iterator[str]:
    """Yield the parts between which a breaker finds boundaries. Lone surrogates, which ICU knows nothing of, stay."""
    position = 0
    for part in breaker(_SURROGATE.sub("\ufffd", text), locale):
        yield text[position : position + len(part)]
        position += len(part)


def shortened(text: str, limit: int) -> str:
    """Return as many clusters of a text as have at most ``limit`` characters; of one that has more, that many."""
    if len(text) <= limit:
        return text
    kept = ""
    for cluster in graphemes(text):
        if len(kept) + len(cluster) > limit:
            break
        kept += cluster
    return kept or text[:limit]
