"""Dividing segments at pauses and removing words from them: the model often writes one segment for a whole chunk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from pipeline.domain.decoding.transcript import AlignedWord, Segment, Word

SENTENCE_END = tuple(".?!…。｡．？！؟।॥۔។။։።")
CLAUSE_END = tuple(",;:、，；：､،؛၊፣")
CLOSING_MARKS = "\"'”’»」』)）"

IsPause = Callable[[Word, Word], bool]
"""Returns whether a segment ends between two words."""


def ends_sentence(text: str) -> bool:
    """Return whether a sentence ends with this text."""
    return text.rstrip().rstrip(CLOSING_MARKS).endswith(SENTENCE_END)


def ends_clause(text: str) -> bool:
    """Return whether a clause or a sentence ends with this text."""
    return text.rstrip().rstrip(CLOSING_MARKS).endswith(SENTENCE_END + CLAUSE_END)


def divide(segment: Segment, is_pause: IsPause) -> Iterator[Segment]:
    """Yield the parts of a segment, divided between words.

    Args:
        segment: with words that are ``AlignedWord``s, or without any.
        is_pause: called for each pair of neighbours.

    Yields:
        Segments with the times of their first and last word; the segment itself if it has no pause.
    """
    words = segment.words or ()
    cuts = [at for at in range(1, len(words)) if is_pause(words[at - 1], words[at])]
    if not cuts:
        yield segment
        return
    for first, last in pairwise([0, *cuts, len(words)]):
        yield _of_words(segment, words[first:last])


def without_words(segments: Iterable[Segment], dropped: Collection[Word]) -> Iterator[Segment]:
    """Yield segments without the dropped words; a segment that has no word left is dropped.

    Args:
        segments: with words that are ``AlignedWord``s.
        dropped: the words to leave out, by identity.
    """
    identities = {id(word) for word in dropped}
    for segment in segments:
        kept = tuple(word for word in segment.words or () if id(word) not in identities)
        if len(kept) == len(segment.words or ()):
            yield segment
        elif kept:
            yield _of_words(segment, kept)


def _of_words(segment: Segment, words: Sequence[Word]) -> Segment:
    return replace(
        segment,
        start=words[0].start,
        end=words[-1].end,
        text="".join(word.word for word in words),
        tokens=tuple(token for word in words if isinstance(word, AlignedWord) for token in word.tokens),
        words=tuple(words),
    )
