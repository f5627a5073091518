"""Getting the text of speech that a decoding left out: what is missing, whether it was found, and where it belongs."""

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
"""Times in a row that the same text may be found in what is left of a gap: more often, it is made up of noise."""


@dataclass(frozen=True, slots=True, eq=False)
class UncoveredSpeech:
    """Speech of a chunk that its text says nothing about.

    Attributes:
        item: the speech, to be decoded on its own.
        offset_s: where it begins in the chunk.
        stretched: words that were aligned to it although it holds more than them.
        found: what was found in the same gap just before it, in order.
    """

    item: DecodeItem
    offset_s: float
    stretched: tuple[Word, ...]
    found: tuple[str, ...] = ()


def missing_speech(
    item: DecodeItem, words: Sequence[Word], offset_s: float = 0.0, found: tuple[str, ...] = ()
) -> Iterator[UncoveredSpeech]:
    """Find the speech of an item that no word covers; all of it, however short, where there are no words.

    Args:
        item: what was decoded.
        words: what came of it, in seconds from the start of the chunk.
        offset_s: where the item begins in the chunk.
        found: what was found in the same gap so far.
    """
    relative = [replace(word, start=word.start - offset_s, end=word.end - offset_s) for word in words]
    for stretch in uncovered(item.speech or (), relative, _shortest_s(item) if words else 0.0):
        start_s, end_s = offset_s + stretch.start_s, offset_s + stretch.end_s
        yield UncoveredSpeech(
            # The same audio in the same window would give the same: nothing.
            item=replace(item.part(stretch), full_window=not words),
            offset_s=start_s,
            stretched=tuple(word for word in words if is_stretched(word) and word.start < end_s and word.end > start_s),
            found=found,
        )


def uncovered_samples(item: DecodeItem, decoded: Decoded) -> int:
    """Count the samples of speech that a decoding of the item says nothing about."""
    return sum(stretch.samples for stretch in uncovered(item.speech or (), decoded.words, _shortest_s(item)))


def is_silence(item: DecodeItem, decoded: Decoded) -> bool:
    """Return whether a decoding's text is made up.

    Where voice activity detection finds nobody, the text must pass the gate, and the model must find somebody.
    """
    options = item.options
    if item.speech == ():
        doubted = options.no_speech_threshold is not None and decoded.no_speech_prob > options.no_speech_threshold
        return doubted or quality_gate.apply_quality_gate(decoded, options) is GateVerdict.RETRY
    return quality_gate.is_silence(decoded, options)


def recovered_segments(missing: UncoveredSpeech, decoded: Decoded) -> list[Segment]:
    """Return what a decoding of missing speech adds to the chunk, in seconds from its start.

    It must be good, new, and say more than what was stretched over the gap. Segments whose words have no time repeat
    what was said before the gap.
    """
    options = missing.item.options
    segments = [segment for segment in decoded.segments if has_plausible_pace(segment.words or ())]
    spoken_words = sum(has_words(word.word) for segment in segments for word in segment.words or ())
    good = quality_gate.apply_quality_gate(
        decoded, options
    ) is GateVerdict.ACCEPT or quality_gate.is_genuine_repetition(decoded, options)
    is_new = missing.found[-MAX_REPEATS:] != (decoded.text,) * MAX_REPEATS
    if good and is_new and spoken_words > len(missing.stretched) and not is_silence(missing.item, decoded):
        return [shift(segment, missing.offset_s) for segment in segments]
    return []


def insert(segments: Iterable[Segment], missing: UncoveredSpeech, found: Sequence[Segment]) -> list[Segment]:
    """Put what was found between the words that it was said between, in place of those stretched over it.

    Args:
        segments: of the chunk so far, in order.
        missing: the gap.
        found: what is said there, in seconds from the start of the chunk.
    """

    def is_gap(before: Word, after: Word) -> bool:
        return before.start < missing.offset_s <= after.start

    kept = without_words(segments, missing.stretched)
    parts = [part for segment in kept for part in divide(segment, is_gap)]
    return sorted([*parts, *found], key=lambda segment: segment.start)


def _shortest_s(item: DecodeItem) -> float:
    translated = item.options.task_type is TaskType.TRANSLATE
    return MIN_UNCOVERED_TRANSLATED_S if translated else MIN_UNCOVERED_S
