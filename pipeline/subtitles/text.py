"""Where text may be broken, and how wide it is."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

_OPENING = re.escape("([{「『（《〈【〔［｛“‘«¿¡")
_CLOSING = (
    re.escape(")]},.!?:;…%、。，．・：；？！）」』】》〉〕］｝”’»‥～％")
    + "゛゜ヽヾゝゞ々ーぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮ"
    + "\u3099\u309a\ufe00-\ufe0f"  # sound marks and variation selectors belong to what they follow
)
_UNBLANKED = (
    "\u2e80-\u303f\u3040-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uff9f\U00020000-\U0003ffff"
)
"""Han, kana, bopomofo, their punctuation and full-width forms; not Hangul, which is written with blanks."""

_UNIT = re.compile(rf"[{_OPENING}]*(?:[{_UNBLANKED}]|[^{_UNBLANKED}\s]+)?[{_CLOSING}]*")


def split_text(text: str, *, after_blank: bool = False) -> Iterator[tuple[str, bool]]:
    """Cuts text where a line may be broken: at blanks, and between the characters of scripts that use none.

    Args:
        text: any text; runs of blanks and line feeds count as one blank.
        after_blank: the text before this one ended with a blank.

    Yields:
        Each unit without blanks around it, and whether a blank goes before it.
    """
    for position, token in enumerate(text.split()):
        spaced = after_blank or text[0].isspace() if position == 0 else True
        for match in _UNIT.finditer(token):
            if unit := match.group():
                yield unit, spaced and match.start() == 0


def hard_cut(unit: str, max_width: int) -> Iterator[str]:
    """Cuts a unit that is wider than a line (an address, a script without blanks) into parts that fit.

    Combining marks stay with the character they belong to.
    """
    part, width = "", 0
    for character in unit:
        columns = _columns(character)
        if width + columns > max_width:
            yield part
            part, width = "", 0
        part += character
        width += columns
    yield part


def width_of(text: str) -> int:
    """Columns a text takes: two for wide characters, none for combining marks (Unicode Standard Annex 11)."""
    return sum(map(_columns, text))


@cache
def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
