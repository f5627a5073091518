"""Finding speech that a transcript does not cover, because the model stopped early or merged two sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pipeline.domain.audio.spans import Span, to_samples
from pipeline.domain.audio.speech import merge_touching, within
from pipeline.domain.decoding.transcript import Word
from pipeline.domain.decoding.writing_systems import count_characters, has_words

MIN_UNCOVERED_S = 1.0
"""Shortest speech between two words that counts as uncovered. Voice activity detection counts pauses of half a second
as speech, and adds some padding."""

MIN_UNCOVERED_TRANSLATED_S = 3.0
"""The same for a translation, whose words do not follow the order of the speech."""

MIN_UTTERANCE_S = 0.5
"""Shortest speech between two silences, including 0.1 s of each, that needs at least one word."""

LETTER_S, SYLLABLE_S, DIGIT_S, SLOW_WORD_S = 0.15, 0.4, 0.5, 0.3
"""Seconds that a slow speaker needs for a letter, for a character of a script without blanks, for a digit (which may
stand for a word), and for the shortest word."""


def is_stretched(word: Word) -> bool:
    """Return whether a word lasts so long that it must hide other speech, or a pause.

    An alignment assigns every moment to some word, including moments in which something else is said.
    """
    return word.end - word.start - _longest_s(word.word) >= MIN_UNCOVERED_S


def uncovered(speech: Sequence[Span], words: Iterable[Word], shortest_s: float = MIN_UNCOVERED_S) -> list[Span]:
    """Return the speech that no word covers; a stretched word covers none.

    Args:
        speech: speech spans, in samples from the start of the audio, in order.
        words: transcribed words, in seconds from the start of the audio, in order.
        shortest_s: seconds of speech from which a gap between words counts; a whole utterance in it counts anyway.

    Returns:
        One span for each gap, from its first to its last speech, in order.
    """
    spoken = ((word.start, word.end) for word in words if has_words(word.word) and not is_stretched(word))
    covered = merge_touching(sorted(Span(to_samples(start), to_samples(end)) for start, end in spoken))
    utterance = to_samples(MIN_UTTERANCE_S if shortest_s <= MIN_UNCOVERED_S else shortest_s)
    found = []
    for gap in _between(covered, speech[-1].end if speech else 0):
        parts = within(speech, gap)
        is_long = sum(part.samples for part in parts) >= max(1, to_samples(shortest_s))
        if is_long or any(part in speech and part.samples >= utterance for part in parts):
            found.append(Span(parts[0].start, parts[-1].end))
    return found


def _longest_s(text: str) -> float:
    counts = count_characters(text)
    return max(SLOW_WORD_S, LETTER_S * counts.letters + SYLLABLE_S * counts.syllables + DIGIT_S * counts.digits)


def _between(covered: Iterable[Span], end: int) -> Iterator[Span]:
    position = 0
    for span in covered:
        yield Span(position, span.start)
        position = max(position, span.end)
    yield Span(position, end)
