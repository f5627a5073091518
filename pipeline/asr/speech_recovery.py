"""Gap recovery: find speech that no word of a decoding covers, check its text, and insert it into the chunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.asr.engine import Decoded, DecodeItem
from pipeline.domain.decoding import quality_gate
from pipeline.domain.decoding.coverage import MIN_UNCOVERED_S, MIN_UNCOVERED_TRANSLATED_S, is_stretched, uncovered
from pipeline.domain.decoding.quality_gate import GateVerdict
from pipeline.domain.decoding.segments import divide, without_words
from pipeline.domain.decoding.speaking_rate import has_plausible_pace
from pipeline.domain.decoding.timeline import shift
from pipeline.domain.decoding.transcript import Segment, Word
from pipeline.domain.decoding.transcription_options import TaskType
from pipeline.domain.decoding.writing_systems import has_words

MAX_REPEATS = 2
"""Times in a row that the same text may be recovered from one gap. More often, the model makes it up from noise."""


@dataclass(frozen=True, slots=True, eq=False)
class UncoveredSpeech:
    """Speech of a chunk that no word covers.

    Attributes:
        item: the speech, to be decoded on its own.
        offset_s: start of the speech in the chunk.
        stretched: words that the alignment stretched over the speech although it holds more than them.
        recovered_texts: texts recovered from the same gap directly before, in order.
    """

    item: DecodeItem
    offset_s: float
    stretched: tuple[Word, ...]
    recovered_texts: tuple[str, ...] = ()


def uncovered_speech(
    item: DecodeItem, words: Sequence[Word], offset_s: float = 0.0, recovered_texts: tuple[str, ...] = ()
) -> Iterator[UncoveredSpeech]:
    """Yield the speech of an item that no word covers; if there are no words, all speech, however short.

    Args:
        item: the item that was decoded.
        words: words of its decoding, in seconds from the start of the chunk.
        offset_s: start of the item in the chunk.
        recovered_texts: texts recovered from the same gap so far.
    """
    relative = [replace(word, start=word.start - offset_s, end=word.end - offset_s) for word in words]
    for span in uncovered(item.speech or (), relative, _min_uncovered_s(item) if words else 0.0):
        start_s, end_s = offset_s + span.start_s, offset_s + span.end_s
        yield UncoveredSpeech(
            # Without words, the window must change: the same audio in the same window would give no text again.
            item=replace(item.slice(span), full_window=not words),
            offset_s=start_s,
            stretched=tuple(word for word in words if is_stretched(word) and word.start < end_s and word.end > start_s),
            recovered_texts=recovered_texts,
        )


def uncovered_samples(item: DecodeItem, decoded: Decoded) -> int:
    """Count the samples of the item's speech that no word of a decoding covers."""
    return sum(span.samples for span in uncovered(item.speech or (), decoded.words, _min_uncovered_s(item)))


def is_made_up(item: DecodeItem, decoded: Decoded) -> bool:
    """Return whether a decoding has text where nobody speaks.

    Where voice activity detection found no speech, the text counts only if it passes the quality gate and the model's
    own speech probability is high enough too.
    """
    options = item.options
    if item.speech == ():
        doubted = options.no_speech_threshold is not None and decoded.no_speech_prob > options.no_speech_threshold
        return doubted or quality_gate.apply_quality_gate(decoded, options) is GateVerdict.RETRY
    return quality_gate.is_silence(decoded, options)


def recovered_segments(gap: UncoveredSpeech, decoded: Decoded) -> list[Segment]:
    """Return the segments that a decoding of a gap adds to the chunk, in seconds from the chunk's start.

    The decoding must be good and new, and have more words than those stretched over the gap. Segments whose words take
    no time are left out: they repeat what was said before the gap.
    """
    options = gap.item.options
    segments = [segment for segment in decoded.segments if has_plausible_pace(segment.words or ())]
    spoken_words = sum(has_words(word.word) for segment in segments for word in segment.words or ())
    good = quality_gate.apply_quality_gate(
        decoded, options
    ) is GateVerdict.ACCEPT or quality_gate.is_genuine_repetition(decoded, options)
    is_new = gap.recovered_texts[-MAX_REPEATS:] != (decoded.text,) * MAX_REPEATS
    if good and is_new and spoken_words > len(gap.stretched) and not is_made_up(gap.item, decoded):
        return [shift(segment, gap.offset_s) for segment in segments]
    return []


def insert_recovered(segments: Iterable[Segment], gap: UncoveredSpeech, recovered: Sequence[Segment]) -> list[Segment]:
    """Insert recovered segments between the words around a gap, in place of the words stretched over it.

    Args:
        segments: segments of the chunk so far, in order.
        gap: the uncovered speech.
        recovered: its segments, in seconds from the start of the chunk.
    """

    def is_gap(before: Word, after: Word) -> bool:
        return before.start < gap.offset_s <= after.start

    kept = without_words(segments, gap.stretched)
    divided = [part for segment in kept for part in divide(segment, is_gap)]
    return sorted([*divided, *recovered], key=lambda segment: segment.start)


def _min_uncovered_s(item: DecodeItem) -> float:
    translated = item.options.task_type is TaskType.TRANSLATE
    return MIN_UNCOVERED_TRANSLATED_S if translated else MIN_UNCOVERED_S
