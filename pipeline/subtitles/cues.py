"""Cues from segments: the text on the screen at each time, in lines that people can read.

A segment becomes one cue, or several if it is too long for the style. Cues use word times if there are any; otherwise
time is spread over the text by its width. ``pipeline.subtitles.text`` finds the places where a line may be broken.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, islice, pairwise
from typing import Annotated

from annotated_types import Ge, Le

from pipeline.domain.decoding.segments import ends_clause, ends_sentence
from pipeline.domain.decoding.timeline import MAX_PAUSE_S
from pipeline.domain.decoding.transcript import Segment, Transcript
from pipeline.subtitles.text import hard_cut, split_text, width_of

MIN_CUE_MS = 40
"""Shortest duration of a cue: one frame of film."""
PAUSE_S = 0.5
"""Shortest silence between two words that is a good place to change the cue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CueStyle:
    """The layout of cues."""

    max_line_width: Annotated[int, Ge(10), Le(200)] = 42
    """Widest line, in columns; a Chinese or Japanese character takes two."""
    max_lines: Annotated[int, Ge(1), Le(10)] = 2
    """Lines shown at the same time."""
    max_duration_s: Annotated[float, Ge(0.5), Le(60.0)] | None = None
    """Longest time one cue is shown, in seconds. Empty: as long as its segment lasts."""
    highlight_words: bool = False
    """Karaoke: mark each word while it is spoken. The task needs `word_timestamps`."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A word, or its equivalent in a script without blanks; it is never broken.

    Attributes:
        text: text without blanks around it.
        spaced: whether a blank precedes it, unless it begins a line.
        start_s: start of its speech, in seconds.
        end_s: end of its speech, in seconds.
        width: its width in columns.
    """

    text: str
    spaced: bool
    start_s: float
    end_s: float
    width: int


Line = tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Cue:
    """A block of subtitle text, from ``start_ms`` (inclusive) to ``end_ms``; ``number`` counts from 1.

    ``spoken`` is the index, over all lines, of the piece that is spoken in a karaoke frame.
    """

    number: int
    start_ms: int
    end_ms: int
    lines: tuple[Line, ...]
    spoken: int | None = None

    @property
    def text(self) -> str:
        """The lines, joined by line feeds."""
        return "\n".join("".join(spaced_text(line)) for line in self.lines)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The pieces of all lines, in order."""
        return tuple(piece for line in self.lines for piece in line)


def spaced_text(line: Line) -> Iterator[str]:
    """Yield the text of each piece of a line, with the blank before it if it has one."""
    for position, piece in enumerate(line):
        yield f" {piece.text}" if piece.spaced and position else piece.text


def shape_cues(transcript: Transcript, style: CueStyle) -> list[Cue]:
    """Lay out a transcript as cues.

    Returns:
        Cues numbered from 1, in order of time, that do not overlap, hold text, and lie within the media.
    """
    groups = [group for segment in transcript.segments for group in _groups(_pieces(segment, style), style)]
    spans = _spans(groups, int(transcript.info.duration * 1000), style)
    return [
        Cue(number, start, end, _wrap(group, style.max_line_width))
        for number, (group, (start, end)) in enumerate(zip(groups, spans, strict=False), start=1)
    ]


def karaoke_frames(cues: Iterable[Cue]) -> list[Cue]:
    """Split each cue at the starts of its words, for formats that can only mark text as a whole.

    Each word gets a frame of its own.
    """
    frames = [frame for cue in cues for frame in _frames(cue)]
    return [replace(frame, number=number) for number, frame in enumerate(frames, start=1)]


def _frames(cue: Cue) -> Iterator[Cue]:
    begun = (min(round(piece.start_s * 1000), cue.end_ms) for piece in cue.pieces[1:])
    starts = [*accumulate(begun, max, initial=cue.start_ms), cue.end_ms]  # no word starts before the one before it
    for index, (start, end) in enumerate(pairwise(starts)):
        if start < end:
            yield replace(cue, start_ms=start, end_ms=end, spoken=index)


# --- pieces -----------------------------------------------------------------------------------------------------------


def _pieces(segment: Segment, style: CueStyle) -> list[Piece]:
    """Return the pieces of a segment: cut where lines may be broken, which need not be where Whisper's words end."""
    timed = [(word.word, word.start, word.end) for word in segment.words or ()]
    if not any(text.strip() for text, _, _ in timed):
        timed = [(segment.text, segment.start, segment.end)]
    moments = chain.from_iterable(_moments(*spoken) for spoken in timed)
    return [
        _piece(part, spaced and not position, list(islice(moments, len(part))))
        for unit, spaced in split_text("".join(text for text, _, _ in timed))
        for position, part in enumerate(hard_cut(unit, style.max_line_width))
    ]


def _piece(text: str, spaced: bool, moments: Sequence[tuple[float, float]]) -> Piece:
    return Piece(text, spaced, moments[0][0], max(end_s for _, end_s in moments), width_of(text))


def _moments(text: str, start_s: float, end_s: float) -> Iterator[tuple[float, float]]:
    """Yield start and end of each character that is no blank: the time of a word, spread over its text by width."""
    widths = [width_of(character) for character in "".join(text.split())]
    per_column, passed = (end_s - start_s) / (sum(widths) or 1), 0
    for width in widths:
        yield start_s + passed * per_column, start_s + (passed + width) * per_column
        passed += width


# --- groups of pieces, one for each cue -------------------------------------------------------------------------------


def _groups(pieces: Sequence[Piece], style: CueStyle) -> Iterator[Sequence[Piece]]:
    """Divide pieces into groups that fit one cue; no group spans a long pause."""
    pauses = [at for at in range(1, len(pieces)) if pieces[at].start_s - pieces[at - 1].end_s > MAX_PAUSE_S]
    for first, last in pairwise([0, *pauses, len(pieces)]):
        yield from _full_groups(pieces[first:last], style)


def _full_groups(pieces: Sequence[Piece], style: CueStyle) -> Iterator[Sequence[Piece]]:
    while pieces:
        capacity = _capacity(pieces, style)
        cut = capacity if capacity == len(pieces) else _best_cut(pieces, capacity)
        yield pieces[:cut]
        pieces = pieces[cut:]


def _capacity(pieces: Sequence[Piece], style: CueStyle) -> int:
    """Return the number of pieces that one cue can hold, at least one."""
    longest_s = style.max_duration_s if style.max_duration_s is not None else float("inf")
    lines, width = 1, 0
    for count, piece in enumerate(pieces):
        if count and piece.end_s - pieces[0].start_s > longest_s:
            return count
        grown = width + piece.width + (1 if piece.spaced and width else 0)
        if grown <= style.max_line_width:
            width = grown
        elif lines == style.max_lines:
            return count
        else:
            lines, width = lines + 1, piece.width
    return len(pieces)


def _best_cut(pieces: Sequence[Piece], capacity: int) -> int:
    """Return the best end of a cue that can't hold all pieces.

    That is after a pause or a sentence, else after a clause, else in even shares.
    """
    even_share = len(pieces) / -(-len(pieces) // capacity)
    candidates = range(max(1, capacity // 2), capacity + 1)
    return max(candidates, key=lambda cut: (_break_strength(pieces[cut - 1], pieces[cut]), -abs(cut - even_share)))


def _break_strength(before: Piece, after: Piece) -> int:
    if after.start_s - before.end_s >= PAUSE_S:
        return 3
    if ends_sentence(before.text):
        return 2
    return 1 if ends_clause(before.text) else 0


# --- lines ------------------------------------------------------------------------------------------------------------


def _wrap(pieces: Sequence[Piece], max_width: int) -> tuple[Line, ...]:
    """Return as few lines as fit, each as narrow as possible: lines of similar length are easier to read."""
    needed = len(_fill(pieces, max_width))
    widths = range(max(piece.width for piece in pieces), max_width + 1)
    narrowest = bisect_left(widths, True, key=lambda width: len(_fill(pieces, width)) <= needed)
    return _fill(pieces, widths[narrowest])


def _fill(pieces: Sequence[Piece], max_width: int) -> tuple[Line, ...]:
    lines: list[list[Piece]] = []
    width = 0
    for piece in pieces:
        grown = width + piece.width + (1 if piece.spaced and width else 0)
        if lines and grown <= max_width:
            lines[-1].append(piece)
            width = grown
        else:
            lines.append([piece])
            width = piece.width
    return tuple(tuple(line) for line in lines)


# --- times ------------------------------------------------------------------------------------------------------------


def _spans(groups: Sequence[Sequence[Piece]], duration_ms: int, style: CueStyle) -> list[tuple[int, int]]:
    """Return start and end of each cue in ms: in order, without overlap, within the media.

    Each lasts at least one frame if there is room. Media too short to show every cue for a millisecond shows only the
    first ones.
    """
    if not groups or duration_ms < 1:
        return []
    frame = max(1, min(MIN_CUE_MS, duration_ms // len(groups)))
    starts: list[int] = []
    for index, group in enumerate(groups[:duration_ms]):
        latest = duration_ms - frame * (min(len(groups), duration_ms) - index)
        earliest = starts[-1] + frame if starts else 0
        starts.append(min(max(round(group[0].start_s * 1000), earliest), latest))
    nexts = [*starts[1:], duration_ms]
    return [
        (start, min(following, max(_end_ms(group, start, style), start + frame)))
        for group, start, following in zip(groups, starts, nexts, strict=False)
    ]


def _end_ms(group: Sequence[Piece], start_ms: int, style: CueStyle) -> int:
    end_ms = round(max(piece.end_s for piece in group) * 1000)
    return end_ms if style.max_duration_s is None else min(end_ms, start_ms + int(style.max_duration_s * 1000))
