"""Dropping text that the model made up beside a silence, by its word times (``hallucination_silence_threshold``).

The score and its numbers are those of ``WhisperModel.generate_segments`` in faster-whisper, which took them from
openai/whisper (#1838). There, decoding continues after the dropped segment. Here, the segments after it are kept, since
they were decoded from the same audio.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.audio.spans import Span, to_samples
from pipeline.domain.audio.speech import within
from pipeline.domain.decoding.transcript import Segment, Word

IMPROBABLE = 0.15
SUSPECT_WORD_S = 0.133
LONGEST_WORD_S = 2.0
WORDS_SCORED = 8
ANOMALOUS_SCORE = 3.0
EDGE_SILENCE_S = 2.0
"""Distance from the chunk's edge up to which a segment has silence on that side: chunks are cut at silence."""

_PUNCTUATION = "\"'“¿([{-\"'.。,，!！?？:：”)]}、"


def drop_hallucinations(
    segments: Sequence[Segment], threshold_s: float, start_s: float, end_s: float
) -> tuple[Segment, ...]:
    """Return the segments without those that look made up and lie between silences or other such segments.

    Args:
        segments: segments of one chunk, in order, on the original timeline (silence that VAD removed counts); those
            without words are kept.
        threshold_s: length of silence above which a segment beside it may be made up.
        start_s: start of the chunk on the original timeline.
        end_s: end of the chunk on the original timeline.
    """
    kept: list[Segment] = []
    last_end = start_s
    for position, segment in enumerate(segments):
        if not segment.words:
            kept.append(segment)
            continue
        following = next((later for later in segments[position + 1 :] if later.words), None)
        before = segment.start - last_end > threshold_s or segment.start - start_s < EDGE_SILENCE_S
        if not (before and is_anomalous(segment) and _silence_after(segment, following, threshold_s, end_s)):
            kept.append(segment)
        last_end = segment.end
    return tuple(kept)


def drop_text_without_speech(
    segments: Sequence[Segment], speech: Sequence[Span], audible: Sequence[Span]
) -> tuple[Segment, ...]:
    """Return the segments without those that the model made up where nobody speaks.

    Voice activity detection may miss speech. So text outside detected speech is dropped only if there is no sound, or
    if its words are improbable or have no duration.

    Args:
        segments: segments of one chunk with words, in seconds from its start.
        speech: speech spans by voice activity detection, in samples from the chunk's start.
        audible: spans with any sound, in samples from the chunk's start.
    """
    return tuple(
        segment
        for segment in segments
        if _overlaps(segment, speech) or (_overlaps(segment, audible) and not is_anomalous(segment))
    )


def _overlaps(segment: Segment, spans: Sequence[Span]) -> bool:
    return bool(within(spans, Span(to_samples(segment.start), to_samples(segment.end))))


def is_anomalous(segment: Segment) -> bool:
    """Return whether the first words are improbable, or last too short or too long to have been said."""
    words = [word for word in segment.words or () if word.word not in _PUNCTUATION][:WORDS_SCORED]
    if not segment.words:
        return False
    score = sum(map(_anomaly_score, words))
    return score >= ANOMALOUS_SCORE or score + 0.01 >= len(words)


def _silence_after(segment: Segment, following: Segment | None, threshold_s: float, end_s: float) -> bool:
    next_start = following.words[0].start if following and following.words else end_s
    return (
        next_start - segment.end > threshold_s
        or (following is not None and is_anomalous(following))
        or end_s - segment.end < EDGE_SILENCE_S
    )


def _anomaly_score(word: Word) -> float:
    duration_s = word.end - word.start
    improbable = 1.0 if word.probability < IMPROBABLE else 0.0
    return improbable + max(0.0, SUSPECT_WORD_S - duration_s) * 15 + max(0.0, duration_s - LONGEST_WORD_S)
