"""Putting what was heard in a chunk, whose silences were cut out, back on the recording's own timeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, islice, pairwise

from pipeline.domain.audio import Chunk, Span
from pipeline.domain.coverage import has_words
from pipeline.domain.segments import divide, ends_sentence
from pipeline.domain.transcript import Segment, Word

MAX_PAUSE_S = 1.0
"""Longest pause between two words of one segment."""

MAX_CUT_S = 0.6
"""Longest silence that may have been cut out between them: speech is padded by 0.2 s on either side of it."""

NEAR_S = 0.2
"""That padding, in which nobody speaks."""

SHORTEST_WORD_S = 0.02
"""One step of the model's time; an alignment may give a word none at all."""


def place(chunk: Chunk, segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Place segments on the original timeline.

    Args:
        chunk: where the audio comes from.
        segments: with times in seconds from the chunk's first sample, in order; with ``AlignedWord``s, or without any.

    Returns:
        Those that say something within the chunk's audio, in order, none beyond the chunk and none across a long
        pause. Words don't overlap, and each takes some time.
    """
    joints = tuple(accumulate(span.duration_s for span in chunk.spans[:-1]))
    said = [one for one in segments if has_words(one.text) and one.start < chunk.duration_s]
    placed = [_place_segment(chunk, joints, segment) for segment in said]
    words = _with_durations([word for segment in placed for word in segment.words or ()], chunk.end_s)
    timed = _with_words(placed, iter(words))
    divided = [part for segment in timed for part in divide(segment, partial(_is_pause, chunk))]
    return tuple(_plain(segment) for segment in divided if segment.start < segment.end)


def clip_to_speech(segments: Iterable[Segment], speech: Sequence[Span]) -> tuple[Segment, ...]:
    """Shorten words that begin or end beyond the speech they lie in: an alignment gives silence to the words beside it.

    Args:
        segments: one chunk's, with words, in seconds from its start.
        speech: where somebody speaks, in samples from there.
    """
    near = [(span.start_s - NEAR_S, span.end_s + NEAR_S) for span in speech]
    return tuple(
        replace(segment, words=segment.words and tuple(_clipped(word, near) for word in segment.words))
        for segment in segments
    )


def _clipped(word: Word, stretches: Iterable[tuple[float, float]]) -> Word:
    """Return the word within the last stretch that it reaches into, which is where the silence before it ends."""
    reached = [(start, end) for start, end in stretches if word.start < end and word.end > start]
    if not reached:
        return word
    start, end = reached[-1]
    return replace(word, start=max(word.start, start), end=min(word.end, end))


def _place_segment(chunk: Chunk, joints: Sequence[float], segment: Segment) -> Segment:
    words = _beside_joints(segment.words or (), joints)
    return replace(
        segment,
        seek=round(chunk.start_s * 100),
        start=_rounded(chunk, chunk.to_timeline(segment.start)),
        end=_rounded(chunk, chunk.to_timeline(segment.end, is_end=True)),
        words=tuple(_place_word(chunk, word) for word in words) if words else segment.words,
    )


def _beside_joints(words: Sequence[Word], joints: Sequence[float]) -> list[Word]:
    """Put each word on one side of every joint: an alignment gives the silence around a joint to the words beside it.

    The first word of a sentence comes after the silence, and the last one before it; others go by their middle.
    """
    settled = list(words)
    for joint in joints:
        for at, word in enumerate(settled):
            if word.start < joint + NEAR_S and word.end > joint - NEAR_S:
                settled[at] = _beside(joint, word, _is_after(joint, settled, at))
    return settled


def _is_after(joint: float, words: Sequence[Word], at: int) -> bool:
    word = words[at]
    middle = (word.start + word.end) / 2
    begins = at == 0 or ends_sentence(words[at - 1].word)
    ends = at == len(words) - 1 or ends_sentence(word.word)
    goes_across = word.start < joint < word.end
    if begins == ends or not (goes_across or abs(middle - joint) <= NEAR_S):
        return middle >= joint
    neighbour = words[at + 1] if begins else words[at - 1]
    goes_with_neighbour = ((neighbour.start + neighbour.end) / 2 >= joint) == begins
    return begins if goes_with_neighbour else middle >= joint


def _beside(joint: float, word: Word, is_after: bool) -> Word:
    if is_after:
        return replace(word, start=max(word.start, joint), end=max(word.end, joint + SHORTEST_WORD_S))
    return replace(word, start=min(word.start, joint - SHORTEST_WORD_S), end=min(word.end, joint))


def _with_durations(words: Sequence[Word], end_s: float) -> list[Word]:
    """Keep words in order and apart, each at least ``SHORTEST_WORD_S`` long where there is room before ``end_s``."""
    if not words:
        return []
    shortest_s = min(SHORTEST_WORD_S, max(0.0, end_s - words[0].start) / len(words))
    timed: list[Word] = []
    for index, word in enumerate(words):
        latest_s = end_s - (len(words) - index) * shortest_s
        start = min(max(word.start, timed[-1].end if timed else 0.0), latest_s)
        end = max(min(word.end, latest_s + shortest_s), start + shortest_s)
        timed.append(replace(word, start=min(round(start, 3), end_s), end=min(round(end, 3), end_s)))
    return timed


def _with_words(segments: Iterable[Segment], words: Iterator[Word]) -> Iterator[Segment]:
    """Give segments their next words, and those words' times."""
    for segment in segments:
        own = tuple(islice(words, len(segment.words or ())))
        yield replace(segment, start=own[0].start, end=own[-1].end, words=own) if own else segment


def _is_pause(chunk: Chunk, before: Word, after: Word) -> bool:
    if after.start - before.end > MAX_PAUSE_S:
        return True
    cuts = ((left.end_s, right.start_s) for left, right in pairwise(chunk.spans))
    return any(before.start < end and after.end > start and start - end > MAX_CUT_S for end, start in cuts)


def _plain(segment: Segment) -> Segment:
    words = segment.words
    if words is not None:
        words = tuple(Word(word.start, word.end, word.word, word.probability) for word in words)
    return replace(segment, words=words)


def shift(segment: Segment, by_s: float) -> Segment:
    """The segment ``by_s`` seconds later."""
    words = None
    if segment.words is not None:
        words = tuple(replace(word, start=word.start + by_s, end=word.end + by_s) for word in segment.words)
    return replace(segment, start=segment.start + by_s, end=segment.end + by_s, words=words)


def _place_word(chunk: Chunk, word: Word) -> Word:
    """A word lies in one span, that of its middle: no word lasts through a silence that was cut out."""
    middle = (word.start + word.end) / 2
    offset = 0.0
    for span in chunk.spans:
        if middle < offset + span.duration_s or span is chunk.spans[-1]:
            break
        offset += span.duration_s
    start, end = (
        _rounded(chunk, span.start_s + min(max(time - offset, 0.0), span.duration_s)) for time in (word.start, word.end)
    )
    return replace(word, start=start, end=max(start, end))


def _rounded(chunk: Chunk, time_s: float) -> float:
    """Milliseconds, as subtitles have them, without rounding past the chunk's end."""
    return min(round(time_s, 3), chunk.end_s)
