"""Placing the segments of a chunk, whose silences were cut out, on the original timeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain, islice, pairwise
from math import ceil

from pipeline.domain.audio.spans import Chunk, Span, to_samples
from pipeline.domain.decoding.segments import divide, ends_clause
from pipeline.domain.decoding.speaking_rate import spoken_s
from pipeline.domain.decoding.transcript import Segment, Word
from pipeline.domain.decoding.writing_systems import is_punctuation

MAX_PAUSE_S = 1.0
"""Longest pause between two words of one segment."""

SPEECH_PAD_S = 0.1
"""Distance from detected speech at which words may still begin and end."""

MAX_SILENCE_S = 0.6
"""Longest silence in a segment between padded speech: the end of speech is detected up to 0.2 s late."""

NEAR_JOINT_S = 0.4
"""Distance up to which a word belongs to the speech beside it."""

MAX_JOINT_SILENCE_S = 0.7
"""Most silence on either side of a joint: the padding of speech and the delay in detecting its end. A longer one means
that the speech beside the joint was not detected again."""

TIME_STEP_MS = 20
"""One step of the model's timestamps; an alignment may give a word no time at all."""


def place(chunk: Chunk, segments: Iterable[Segment], speech: Sequence[Span] | None = None) -> tuple[Segment, ...]:
    """Place segments on the original timeline.

    Args:
        chunk: chunk of the segments.
        segments: with times in seconds from the chunk's first sample, in order; with ``AlignedWord``s, or without any.
        speech: speech spans with a padding of ``SPEECH_PAD_S``, in samples from the chunk's first one; ``None``: the
            whole chunk.

    Returns:
        The segments that hold text within the chunk's audio, in order, none beyond the chunk and none across a long
        pause. Words do not overlap, and each lasts some time.
    """
    speech = speech or (Span(0, to_samples(chunk.duration_s)),)
    spoken_segments = [one for one in segments if not is_punctuation(one.text) and one.start < chunk.duration_s]
    placed = [_place_segment(chunk, speech, segment) for segment in spoken_segments]
    words = _with_durations([word for segment in placed for word in segment.words or ()], chunk)
    timed = _with_words(placed, iter(words))
    is_pause = partial(_is_pause, _pauses(chunk, speech))
    return tuple(map(_plain, chain.from_iterable(divide(segment, is_pause) for segment in timed)))


def _place_segment(chunk: Chunk, speech: Sequence[Span], segment: Segment) -> Segment:
    settled = _separate_at_joints(segment.words or (), _joints(chunk, speech))
    words = [_clamp_to_speech(word, speech) for word in settled]
    start = min(_rounded(chunk, chunk.to_timeline(segment.start)), chunk.end_s - TIME_STEP_MS / 1000)
    end = _rounded(chunk, chunk.to_timeline(segment.end, is_end=True))
    return replace(
        segment,
        seek=round(chunk.start_s * 100),
        start=max(start, chunk.start_s),
        end=min(max(end, start + TIME_STEP_MS / 1000), chunk.end_s),
        words=tuple(_place_word(chunk, word) for word in words) if words else segment.words,
    )


@dataclass(frozen=True, slots=True)
class _Joint:
    """A joint between two spans of a chunk, where silence was cut out, in seconds of the chunk.

    Attributes:
        at: position of the joint.
        begin: latest time before the joint from which nobody speaks for certain.
        end: earliest time after the joint until which nobody speaks for certain.
    """

    at: float
    begin: float
    end: float

    def is_after(self, word: Word, is_last: bool) -> bool:
        """Return whether more of a word lies in the speech after the joint than in the speech before it.

        A word that lies in neither comes after the silence: an alignment gives the silence to the word that follows it.
        """
        before_s, after_s = self.begin - word.start, word.end - self.end
        if max(before_s, after_s) < spoken_s(word.word) / 2:
            return not is_last and word.end > self.begin
        return after_s > before_s

    def is_near(self, word: Word) -> bool:
        """Return whether a word lies across the joint or in the silence around it."""
        return word.start < self.at < word.end or self.begin <= _middle(word) <= self.end


def _joints(chunk: Chunk, speech: Sequence[Span]) -> list[_Joint]:
    """Return the joints between a chunk's spans."""
    found = []
    for at in accumulate(span.duration_s for span in chunk.spans[:-1]):
        begin = max((span.end_s for span in speech if span.end_s <= at), default=at)
        end = min((span.start_s for span in speech if span.start_s >= at), default=at)
        found.append(
            _Joint(
                at,
                max(begin - SPEECH_PAD_S, at - MAX_JOINT_SILENCE_S),
                min(end + SPEECH_PAD_S, at + MAX_JOINT_SILENCE_S),
            )
        )
    return found


def _separate_at_joints(words: Sequence[Word], joints: Iterable[_Joint]) -> list[Word]:
    """Move each word to one side of every joint: an alignment gives the silence around a joint to the words beside it.

    The first word of a clause goes after the silence, and the last one before it. Other words go where more of them is.
    """
    settled = list(words)
    for joint in joints:
        for index, word in enumerate(settled):
            if word.start < joint.end and word.end > joint.begin:
                settled[index] = _move_beside(joint, word, _is_after(joint, settled, index))
    return settled


def _is_after(joint: _Joint, words: Sequence[Word], index: int) -> bool:
    word, is_last = words[index], index == len(words) - 1
    begins = index == 0 or ends_clause(words[index - 1].word)
    ends = is_last or ends_clause(word.word)
    if begins == ends or not joint.is_near(word):
        return joint.is_after(word, is_last)
    neighbour = words[index + 1] if begins else words[index - 1]
    goes_with_neighbour = joint.is_after(neighbour, is_last=not begins) == begins
    return begins if goes_with_neighbour else joint.is_after(word, is_last)


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2


def _move_beside(joint: _Joint, word: Word, is_after: bool) -> Word:
    step_s = TIME_STEP_MS / 1000
    if is_after:
        return replace(word, start=max(word.start, joint.at), end=max(word.end, joint.at + step_s))
    return replace(word, start=min(word.start, joint.at - step_s), end=min(word.end, joint.at))


def _clamp_to_speech(word: Word, speech: Iterable[Span]) -> Word:
    """Shorten a word to the last speech that it overlaps: the silence before it ends there.

    The word keeps the time that it takes to say. A word near speech that overlaps none is moved to it; a distant one
    stays.
    """
    reached = [span for span in speech if word.start < span.end_s and word.end > span.start_s]
    if not reached:
        edges = [edge for span in speech for edge in (span.start_s, span.end_s)]
        nearest = min(edges, key=lambda edge: abs(edge - _middle(word)))
        return replace(word, start=nearest, end=nearest) if abs(nearest - _middle(word)) <= NEAR_JOINT_S else word
    needed_s = min(word.end - word.start, spoken_s(word.word))
    start = min(max(word.start, reached[-1].start_s), word.end - needed_s)
    return replace(word, start=start, end=max(min(word.end, reached[-1].end_s), start + needed_s))


def _with_durations(words: Sequence[Word], chunk: Chunk) -> list[Word]:
    """Keep words in order and apart, each at least one step long if the chunk has room for all."""
    first_ms, last_ms = ceil(chunk.start_s * 1000), int(chunk.end_s * 1000)
    shortest_ms = max(0, min(TIME_STEP_MS, (last_ms - first_ms) // max(1, len(words))))
    timed: list[Word] = []
    previous_ms = first_ms
    for index, word in enumerate(words):
        latest_ms = last_ms - (len(words) - index) * shortest_ms
        start_ms = min(max(round(word.start * 1000), previous_ms), latest_ms)
        previous_ms = max(min(round(word.end * 1000), latest_ms + shortest_ms), start_ms + shortest_ms)
        timed.append(replace(word, start=start_ms / 1000, end=previous_ms / 1000))
    return timed


def _with_words(segments: Iterable[Segment], words: Iterator[Word]) -> Iterator[Segment]:
    """Yield segments with their next words and those words' times."""
    for segment in segments:
        own = tuple(islice(words, len(segment.words or ())))
        yield replace(segment, start=own[0].start, end=own[-1].end, words=own) if own else segment


def _pauses(chunk: Chunk, speech: Sequence[Span]) -> list[tuple[float, float]]:
    """Return the ranges of the timeline in which nobody speaks for long, between the speech with its padding."""
    stretches = [(chunk.to_timeline(one.start_s), chunk.to_timeline(one.end_s, is_end=True)) for one in speech]
    cuts = [(left.end_s, right.start_s) for left, right in pairwise(chunk.spans)]
    silences = [(end, start) for (_, end), (start, _) in pairwise(stretches)]
    return [(end, start) for end, start in (*silences, *cuts) if start - end > MAX_SILENCE_S]


def _is_pause(pauses: Iterable[tuple[float, float]], before: Word, after: Word) -> bool:
    if after.start - before.end > MAX_PAUSE_S:
        return True
    return any(_middle(before) <= (start + end) / 2 <= _middle(after) for start, end in pauses)


def _plain(segment: Segment) -> Segment:
    words = segment.words
    if words is not None:
        words = tuple(Word(word.start, word.end, word.word, word.probability) for word in words)
    return replace(segment, words=words)


def shift(segment: Segment, by_s: float) -> Segment:
    """Return the segment ``by_s`` seconds later."""
    words = None
    if segment.words is not None:
        words = tuple(replace(word, start=word.start + by_s, end=word.end + by_s) for word in segment.words)
    return replace(segment, start=segment.start + by_s, end=segment.end + by_s, words=words)


def _place_word(chunk: Chunk, word: Word) -> Word:
    """Place a word in the span that holds its middle: no word lasts through a silence that was cut out."""
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
    """Round to milliseconds, as in subtitles, but not past the chunk's end."""
    return min(round(time_s, 3), chunk.end_s)
