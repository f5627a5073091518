"""Cutting a transcript for a language model: into timed lines, and those into pieces that fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from pipeline.domain.decoding.transcript import Segment
from pipeline.domain.summaries.summary import Chapter

TokenCounter = Callable[[str], int]
"""How many tokens a text has, or at most has."""

LINE_S = 20.0
"""A line ends with the segment that makes it this long: a time costs as many tokens as a short sentence."""

PAUSE_S = 2.0
"""A line ends before a pause of this length."""

_TIME = re.compile(r"\[?(?:(\d{1,3}):)?([0-5]?\d):([0-5]\d)(?:\.\d+)?\]?")
_LATIN_OR_BLANK = re.compile(r"[A-Za-z ]")
_ASCII = re.compile(r"[\x00-\x7f]")


@dataclass(frozen=True, slots=True)
class TimedLine:
    """Speech in one piece, from ``start`` to ``end`` in seconds."""

    start: float
    end: float
    text: str

    def __str__(self) -> str:
        return f"[{clock_time(self.start)}] {self.text}"


def clock_time(seconds: float) -> str:
    """``HH:MM:SS``, rounded down, so that it never lies after what it points at."""
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def seconds_of(text: str) -> float:
    """The inverse of ``clock_time``; takes ``MM:SS``, brackets and fractions too. Raises ``ValueError``."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError("This is not a time like 00:12:34")
    hours, minutes, seconds = match.groups(default="0")
    return int(hours) * 3600.0 + int(minutes) * 60.0 + int(seconds)


def timed_lines(segments: Iterable[Segment]) -> tuple[TimedLine, ...]:
    """Segments joined to lines of about ``LINE_S``, split at pauses; silent ones are left out."""
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
    """The lines in as few pieces as fit ``budget`` tokens each, about equally long; only a line too long is cut.

    Equal pieces, because a last one of two lines would weigh as much in the summary as the others.
    """
    fitting = [part for line in lines for part in _split_line(line, budget, count)]
    costs = [count(line) + 1 for line in fitting]
    number = ceil(sum(costs) / budget)
    while len(cut := _fill_pieces(fitting, costs, ceil(sum(costs) / max(1, number)), budget)) > number:
        number += 1
    return cut


def _fill_pieces(lines: Sequence[str], costs: Sequence[int], target: int, budget: int) -> list[list[str]]:
    """Pieces that end as soon as they have reached ``target``, none above ``budget``."""
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
    """The line, in halves and halves of halves if it alone is more than ``budget``; cut between words if it has any."""
    if count(line) + 1 <= budget or len(line) < 2:
        return [line]
    blank = line.rfind(" ", 1, len(line) // 2 + 1)
    middle = blank if blank > 0 else len(line) // 2
    return [*_split_line(line[:middle], budget, count), *_split_line(line[middle:].lstrip() or " ", budget, count)]


def estimate_tokens(text: str) -> int:
    """More tokens than any common tokenizer makes of a text, for models whose tokenizer is not at hand.

    Three letters or blanks a token, every digit and sign of ASCII one, and of all other scripts three bytes two tokens.
    OpenAI's cl100k_base, whose vocabulary is small for today, needs less for the six scripts of the unit test.
    """
    cheap, ascii_count = len(_LATIN_OR_BLANK.findall(text)), len(_ASCII.findall(text))
    other_bytes = len(text.encode("utf-8", "replace")) - ascii_count
    return ceil(cheap / 3) + (ascii_count - cheap) + ceil(other_bytes / 1.5)


def align_chapters(chapters: Iterable[Chapter], lines: Sequence[TimedLine]) -> tuple[Chapter, ...]:
    """Chapters in order of time, each moved to where the line begins that is said at its start; one for each line."""
    starts = [line.start for line in lines]
    by_start: dict[float, Chapter] = {}
    for chapter in sorted(chapters, key=lambda chapter: chapter.start):
        # a cited time is rounded down, so the line it was read from begins within the second that follows
        start = max((start for start in starts if start < chapter.start + 1.0), default=starts[0])
        by_start.setdefault(start, replace(chapter, start=start))
    return tuple(by_start.values())
