"""Dividing a transcript for a language model: into timed lines, and these into pieces that fit its context."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from pipeline.domain.decoding.transcript import Segment
from pipeline.domain.summaries.summary import Chapter

TokenCounter = Callable[[str], int]
"""Returns the number of tokens of a text, or an upper bound."""

LINE_S = 20.0
"""Seconds after which a line ends with its current segment: a time costs as many tokens as a short sentence."""

PAUSE_S = 2.0
"""Seconds of the shortest pause that ends a line."""

_TIME = re.compile(r"\[?(?:(\d{1,3}):)?([0-5]?\d):([0-5]\d)(?:\.\d+)?\]?")
_LATIN_OR_BLANK = re.compile(r"[A-Za-z ]")
_ASCII = re.compile(r"[\x00-\x7f]")


@dataclass(frozen=True, slots=True)
class TimedLine:
    """A stretch of speech from ``start`` to ``end``, in seconds."""

    start: float
    end: float
    text: str

    def __str__(self) -> str:
        return f"[{clock_time(self.start)}] {self.text}"


def clock_time(seconds: float) -> str:
    """Format seconds as ``HH:MM:SS``, rounded down, so that the time is never later than what it refers to."""
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def seconds_of(text: str) -> float:
    """Parse a time, the inverse of ``clock_time``; also accept ``MM:SS``, brackets and fractions.

    Raises ``ValueError`` for any other text.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError("the text is not a time such as 00:12:34")
    hours, minutes, seconds = match.groups(default="0")
    return int(hours) * 3600.0 + int(minutes) * 60.0 + int(seconds)


def timed_lines(segments: Iterable[Segment]) -> tuple[TimedLine, ...]:
    """Join segments to lines of about ``LINE_S``, split at pauses, without segments that have no text."""
    lines: list[TimedLine] = []
    for segment in segments:
        text = " ".join(segment.text.split())
        if not text:
            continue
        last = lines[-1] if lines else None
        if last and segment.start - last.end < PAUSE_S and last.end - last.start < LINE_S:
            lines[-1] = replace(last, end=segment.end, text=f"{last.text} {text}")
        else:
            lines.append(TimedLine(segment.start, segment.end, text))
    return tuple(lines)


def pieces(lines: Sequence[str], budget: int, count: TokenCounter) -> list[list[str]]:
    """Divide the lines into as few pieces as possible of at most ``budget`` tokens each, about equally long.

    Equal lengths matter: a last piece of two lines would weigh as much in the summary as the others. A line is cut only
    if it alone is longer than ``budget``.
    """
    fitting = [part for line in lines for part in _split_line(line, budget, count)]
    costs = [count(line) + 1 for line in fitting]
    number = ceil(sum(costs) / budget)
    while len(cut := _fill_pieces(fitting, costs, ceil(sum(costs) / max(1, number)), budget)) > number:
        number += 1
    return cut


def _fill_pieces(lines: Sequence[str], costs: Sequence[int], target: int, budget: int) -> list[list[str]]:
    """Return pieces that end as soon as they reach ``target``, none above ``budget``."""
    result: list[list[str]] = []
    size = budget
    for line, cost in zip(lines, costs, strict=True):
        if not result or size >= target or size + cost > budget:
            result.append([])
            size = 0
        result[-1].append(line)
        size += cost
    return result


def _split_line(line: str, budget: int, count: TokenCounter) -> list[str]:
    """Halve a line repeatedly while it alone is longer than ``budget``; cut between words if it has any."""
    if count(line) + 1 <= budget or len(line) < 2:
        return [line]
    blank = line.rfind(" ", 1, len(line) // 2 + 1)
    middle = blank if blank > 0 else len(line) // 2
    return [*_split_line(line[:middle], budget, count), *_split_line(line[middle:].lstrip() or " ", budget, count)]


def estimate_tokens(text: str) -> int:
    """Return an upper estimate of a text's tokens, for models without a tokenizer at hand.

    It is more than any common tokenizer makes: three letters or blanks a token, one token for every digit and sign of
    ASCII, and two tokens for three bytes of any other script. OpenAI's cl100k_base, whose vocabulary is small by
    today's standard, needs less for the six scripts of the unit test.
    """
    cheap, ascii_count = len(_LATIN_OR_BLANK.findall(text)), len(_ASCII.findall(text))
    other_bytes = len(text.encode("utf-8", "replace")) - ascii_count
    return ceil(cheap / 3) + (ascii_count - cheap) + ceil(other_bytes / 1.5)


def align_chapters(chapters: Iterable[Chapter], lines: Sequence[TimedLine]) -> tuple[Chapter, ...]:
    """Return chapters in order of time, each moved to the start of the line that it cites; one a line at most."""
    starts = [line.start for line in lines]
    by_start: dict[float, Chapter] = {}
    for chapter in sorted(chapters, key=lambda chapter: chapter.start):
        # A cited time is rounded down, so its line begins within the second that follows.
        start = max((start for start in starts if start < chapter.start + 1.0), default=starts[0])
        by_start.setdefault(start, replace(chapter, start=start))
    return tuple(by_start.values())
