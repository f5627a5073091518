"""Errors of the times of text against the placements of speech, in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from pipeline.domain.decoding.stitching import stitch
from pipeline.domain.decoding.transcript import ChunkResult, Segment, Transcript, Word
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.subtitles.cues import CueStyle, shape_cues
from tests.benchmarks.result_cache import Result, TimedText
from tests.support import speech
from tests.support.accuracy import align, units

PAUSE_S = 1.0
"""Text that covers more of a pause than this should have been two."""

FOUND_SHARE = 0.5
"""Of a sample's words, from which on its text counts as found: models hear some languages badly."""

LIMITS_S = {"start": 0.3, "end": 0.5}
"""Errors up to these are good."""

Placements = Sequence[speech.Placement]
"""Placements of samples: in order, not overlapping."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The error of one time.

    Attributes:
        what: ``segment``, ``cue``, ``sample`` or ``sample beside a pause``.
        edge: ``start`` or ``end``.
        error_s: distance to where it should be, in seconds.
        time_s: the time itself.
        text: what begins or ends there.
    """

    what: str
    edge: str
    error_s: float
    time_s: float
    text: str

    @property
    def is_good(self) -> bool:
        return self.error_s <= LIMITS_S[self.edge]


@dataclass(frozen=True, slots=True)
class SampleRecall:
    """Words of a sample (characters for ja and zh) that the segments that overlap it hold, of how many."""

    hits: int
    length: int

    @property
    def is_found(self) -> bool:
        return self.hits >= FOUND_SHARE * self.length


@dataclass(frozen=True, slots=True)
class MatchedWords:
    """Words of the samples that the transcript holds; ``misplaced`` are those in segments that don't overlap theirs."""

    hits: int
    misplaced: int


def start_error(time_s: float, placements: Placements) -> float:
    """Return the distance of a start from where text can begin: 0 within speech, else the time to the next speech."""
    if any(one.start_s <= time_s <= one.end_s for one in placements):
        return 0.0
    following = [one.start_s for one in placements if one.start_s > time_s]
    return following[0] - time_s if following else time_s - placements[-1].end_s


def end_error(time_s: float, placements: Placements) -> float:
    """Return the distance of an end from where text can end: 0 within speech, else the time since the speech before."""
    if any(one.start_s <= time_s <= one.end_s for one in placements):
        return 0.0
    preceding = [one.end_s for one in placements if one.end_s < time_s]
    return time_s - preceding[-1] if preceding else placements[0].start_s - time_s


def covers_pause(timed: TimedText, placements: Placements) -> bool:
    """Return whether a text covers more than ``PAUSE_S`` between two samples."""
    pauses = ((before.end_s, after.start_s) for before, after in pairwise(placements))
    return any(min(timed.end_s, end_s) - max(timed.start_s, start_s) > PAUSE_S for start_s, end_s in pauses)


def overlaps(timed: TimedText, placement: speech.Placement) -> bool:
    """Return whether a text is shown while a sample is heard."""
    return timed.start_s < placement.end_s and placement.start_s < timed.end_s


def edge_observations(what: str, texts: Iterable[TimedText], placements: Placements) -> list[Observation]:
    """Return the errors of both edges of segments or cues."""
    return [
        observation
        for one in texts
        for observation in (
            Observation(what, "start", start_error(one.start_s, placements), one.start_s, one.text),
            Observation(what, "end", end_error(one.end_s, placements), one.end_s, one.text),
        )
    ]


def sample_recall(placement: speech.Placement, segments: Iterable[TimedText]) -> SampleRecall:
    """Return the recall of a sample's text in the segments that overlap it."""
    text = " ".join(segment.text for segment in segments if overlaps(segment, placement))
    aligned = align(placement.lang, placement.text, text)
    return SampleRecall(aligned.hits, aligned.length)


def matched_words(segments: Sequence[TimedText], placements: Placements) -> MatchedWords:
    """Match the words of all segments with those of all samples: with the fewest errors, then the fewest misplaced.

    The second counts where a sample is said several times and one of them is missing.
    """
    lang = placements[0].lang
    expected = [(unit, placement) for placement in placements for unit in units(lang, placement.text)]
    recognised = [(unit, segment) for segment in segments for unit in units(lang, segment.text)]
    row = [(column, 0, 0) for column in range(len(recognised) + 1)]  # errors, misplaced, hits as a negative number
    for number, (unit, placement) in enumerate(expected, start=1):
        above, row = row, [(number, 0, 0)]
        for column, (other, segment) in enumerate(recognised):
            if unit == other:
                both = _plus(above[column], 0, not overlaps(segment, placement), -1)
            else:
                both = _plus(above[column], 1, 0, 0)
            row.append(min(both, _plus(above[column + 1], 1, 0, 0), _plus(row[column], 1, 0, 0)))
    _, misplaced, hits = row[-1]
    return MatchedWords(-hits, misplaced)


def _plus(cost: tuple[int, int, int], errors: int, misplaced: int, hits: int) -> tuple[int, int, int]:
    return cost[0] + errors, cost[1] + misplaced, cost[2] + hits


def sample_observations(result: Result, placements: Placements) -> list[Observation]:
    """Return the distances of found samples' edges to the nearest edges of text: of words, where there are any.

    Those beside more than ``PAUSE_S`` of silence or music are given once more, by themselves: beside a shorter pause
    two samples may well share a segment.
    """
    words = [word for segment in result.segments for word in segment.words]
    times = {
        "start": [one.start_s for one in words or result.segments],
        "end": [one.end_s for one in words or result.segments],
    }
    return [
        Observation(what, edge, min(abs(time - at_s) for time in times[edge]), at_s, placement.text)
        for index, placement in enumerate(placements)
        if sample_recall(placement, result.segments).is_found
        for edge, at_s in (("start", placement.start_s), ("end", placement.end_s))
        for what in ("sample", *(["sample beside a pause"] if _pause_beside(index, edge, placements) > PAUSE_S else []))
    ]


def _pause_beside(index: int, edge: str, placements: Placements) -> float:
    """Return the seconds to the sample before or after; to the start of the recording, or without bounds at its end."""
    if edge == "start":
        return placements[index].start_s - (placements[index - 1].end_s if index else 0.0)
    return placements[index + 1].start_s - placements[index].end_s if index + 1 < len(placements) else inf


def cues(result: Result, duration_s: float) -> list[TimedText]:
    """Return the cues that subtitles show of a transcript, in the default style."""
    return [
        TimedText(cue.start_ms / 1000, cue.end_ms / 1000, " ".join(cue.text.split()))
        for cue in shape_cues(_transcript(result, duration_s), CueStyle())
    ]


def _transcript(result: Result, duration_s: float) -> Transcript:
    segments = tuple(_segment(one) for one in result.segments)
    return stitch([ChunkResult(0, duration_s, segments, "")], TranscriptionOptions(), duration_s)


def _segment(timed: TimedText) -> Segment:
    words = tuple(Word(word.start_s, word.end_s, word.text, 1.0) for word in timed.words) or None
    return Segment(0, 0, timed.start_s, timed.end_s, timed.text, (), 0.0, 0.0, 1.0, 0.0, words)
