"""Sentences for people: how a message ends, and how it names what was probably meant."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

MAX_COMPARED = 100
"""Characters of a text that are compared: the time it takes grows with their square."""

NAME_SIMILARITY = 0.75
"""Least similarity of names that are one name mistyped: two letters exchanged in five give 0.8."""

MIN_PREFIX = 3
"""Fewest characters that stand for the name that begins with them."""


def sentence(text: str) -> str:
    """Return the text with exactly one mark at its end: its own question or exclamation mark, else a full stop."""
    ended = text.rstrip().rstrip(".").rstrip()
    return ended if ended.endswith(("?", "!", "…", "。", "？", "！")) else f"{ended}."


def nearest(text: str, known: Collection[str], cutoff: float) -> str | None:
    """Return the known word that is most like the text.

    Args:
        text: what was given.
        known: what could have been meant.
        cutoff: least similarity, 0..1 (``difflib``'s ratio).
    """
    matches = get_close_matches(text[:MAX_COMPARED].lower(), known, n=1, cutoff=cutoff)
    return matches[0] if matches else None


def nearest_name(name: str, known: Collection[str]) -> str | None:
    """Return the known name that a mistyped one stands for, if that is plausible.

    That is one with few letters changed (``statu``, ``beem_size``), or the only one that goes on where the name ends
    (``lang`` for ``language``), or that the name goes on from (``model_name`` for ``model``). Names that only share
    some letters (``page`` and ``language``, ``file_name`` and ``engine_name``) are left alone.

    Args:
        name: what was given.
        known: what could have been meant.
    """
    if near := nearest(name, known, cutoff=NAME_SIMILARITY):
        return near
    begun = [each for each in known if min(len(name), len(each)) >= MIN_PREFIX and _one_begins_other(name, each)]
    return begun[0] if len(begun) == 1 else None


def _one_begins_other(one: str, other: str) -> bool:
    return one.lower().startswith(other) or other.startswith(one.lower())


def with_suggestion(statement: str, suggestion: str | None, otherwise: str) -> str:
    """Return a sentence that says what is wrong, then what was probably meant.

    Args:
        statement: what is wrong, without a mark at its end.
        suggestion: what was probably meant, if that can be said.
        otherwise: ends the sentence where it can't.
    """
    return sentence(f"{statement}: did you mean {suggestion}?" if suggestion else f"{statement}: {otherwise}")
