"""Dividing text into units between possible line breaks, and measuring their widths.

Scripts without blanks are broken between words (Thai, Lao, Khmer, Burmese, Chinese) or phrases (Japanese), by ICU's
dictionaries and models. They are never broken before closing or after opening punctuation (the core of *kinsoku shori*,
JIS X 4051).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from icu4py.breakers import LineBreaker
from wcwidth import wcswidth

from pipeline.domain.text.graphemes import graphemes, pieces

PHRASES = "ja-u-lb-strict-lw-phrase"
"""Locale that breaks lines between phrases if the script has them, never before small kana (UTS 35, Part 1, §3.6.1)."""
CHARACTERS = "ja-u-lb-strict"
"""Locale that breaks lines between any two characters of Han and kana, for a phrase that is wider than a line."""

_OPENING = frozenset("([{「『（《〈【〔［｛“‘«¿¡")
_CLOSING = frozenset(
    ")]},.!?:;…%、。，．・：；？！）」』】》〉〕］｝”’»‥～％"
    "゛゜ヽヾゝゞ々ーぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮ"
    "ๆฯໆຯៗ"
    "\u3099\u309a\ufe00\ufe01\ufe02\ufe03\ufe04\ufe05\ufe06\ufe07\ufe08\ufe09\ufe0a\ufe0b\ufe0c\ufe0d\ufe0e\ufe0f"
)
"""Closing punctuation, and other characters that belong to the one before them: sound marks, signs of repetition and
abbreviation, and variation selectors."""

_UNBLANKED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\ua9e0-\ua9ff\uaa60-\uaa7f"
    "\u2e80-\u303f\u3040-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uff9f\U00020000-\U0003ffff]"
)
"""Characters of scripts without blanks: Thai, Lao, Tibetan, Burmese, Khmer; Han, kana, bopomofo, their punctuation and
full-width forms. Hangul is not among them: it is written with blanks."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def split_text(text: str) -> Iterator[tuple[str, bool]]:
    """Split text where a line may be broken: at blanks, and between the words or phrases of scripts without blanks.

    Args:
        text: any text; runs of blanks and line feeds count as one blank.

    Yields:
        Each unit without blanks around it, and whether a blank precedes it.
    """
    for position, token in enumerate(text.split()):
        spaced = position > 0 or text[0].isspace()
        units = _units(token, PHRASES) if _UNBLANKED.search(token) else [token]
        for number, unit in enumerate(units):
            yield unit, spaced and number == 0


def hard_cut(unit: str, max_width: int) -> Iterator[str]:
    """Cut a unit that is wider than a line (an address, a long phrase) into parts that fit.

    The cuts are where a line may be broken at all, else between grapheme clusters: marks stay with their letter, and
    emoji stay whole.
    """
    line = ""
    for part in _small_parts(unit, max_width):
        if line and width_of(line + part) > max_width:
            yield line
            line = ""
        line += part
    yield line


def width_of(text: str) -> int:
    """Return the width of a text in columns: two for wide characters and emoji, none for marks (UAX 11, by wcwidth)."""
    return max(0, wcswidth(_CONTROL.sub("", text)))


def _small_parts(unit: str, max_width: int) -> Iterator[str]:
    """Yield the parts of a unit, each as large as possible but no wider than a line."""
    for part in [unit] if width_of(unit) <= max_width else _units(unit, CHARACTERS):
        for cluster in [part] if width_of(part) <= max_width else graphemes(part):
            yield from [cluster] if width_of(cluster) <= max_width else cluster


def _units(text: str, locale: str) -> list[str]:
    """Return the parts of a text between possible line breaks, by ICU's rules and our own about punctuation."""
    units: list[str] = []
    for part in pieces(text, LineBreaker, locale):
        if units and (part[0] in _CLOSING or units[-1][-1] in _OPENING):
            units[-1] += part
        else:
            units.append(part)
    return units
