"""Wording of messages for people: their final punctuation, and suggestions for mistyped names."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

MAX_COMPARED = 100
"""Characters of a text that are compared: the time grows with their square."""

NAME_SIMILARITY = 0.75
"""Least similarity of a mistyped name: two exchanged letters in five give 0.8."""

MIN_PREFIX = 3
"""Fewest characters of a name that may stand for a longer one."""


def sentence(text: str) -> str:
    """Return the text with exactly one mark at its end: its own question or exclamation mark, else a full stop."""
    ended = text.rstrip().rstrip(".").rstrip()
    return ended if ended.endswith(("?", "!", "…", "。", "？", "！")) else f"{ended}."


def nearest(text: str, known: Collection[str], cutoff: float) -> str | None:
    """Return the known word that is most similar to the text.

    Args:
        text: the given text.
        known: the known words.
        cutoff: least similarity, 0..1 (``difflib``'s ratio).
    """
    matches = get_close_matches(text[:MAX_COMPARED].lower(), known, n=1, cutoff=cutoff)
    return matches[0] if matches else None


def nearest_name(name: str, known: Collection[str]) -> str | None:
    """Return the known name that a mistyped one most plausibly stands for.

    It differs in few letters (``statu``, ``beem_size``), or it is the only one that extends the given name (``lang``
    for ``language``) or that the given name extends (``model_name`` for ``model``). Names that only share some letters
    (``page`` and ``language``, ``file_name`` and ``engine_name``) do not count.

    Args:
        name: the given name.
        known: the known names.
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
        suggestion: what was probably meant, if that is known.
        otherwise: end of the sentence without a suggestion.
    """
    return sentence(f"{statement}: did you mean {suggestion}?" if suggestion else f"{statement}: {otherwise}")
