"""The result of one row of a Whisper batch, and its conversion from faster-whisper's values to our own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_compression_ratio

from pipeline.asr.engine import FULL_WINDOW_FRAMES, Decoded, DecodeItem, Encoding
from pipeline.domain.decoding.transcript import AlignedWord, LanguageDetection, Segment

RawFields = dict[str, Any]
"""A segment or word as a dictionary, as faster-whisper's functions pass it."""


@dataclass(frozen=True, slots=True)
class DecodedRow:
    """One row of a batch after decoding."""

    item: DecodeItem
    tokenizer: Tokenizer
    detection: LanguageDetection | None
    tokens: list[int]
    avg_logprob: float
    no_speech_prob: float
    segments: list[RawFields]

    @property
    def text_tokens(self) -> list[int]:
        """The tokens of the text, without timestamps."""
        return [token for segment in self.segments for token in segment["tokens"] if token < self.tokenizer.eot]


class PrecomputedAlignment:
    """A substitute for the model in ``WhisperModel.add_word_timestamps``, with an alignment computed in a batch."""

    def __init__(self, frames_per_second: int, alignment: list[RawFields]) -> None:
        self.frames_per_second = frames_per_second
        self._alignment = alignment

    def add_words(self, row: DecodedRow) -> None:
        """Add the words to the row's segments, and the tokens to each word."""
        options = row.item.options
        WhisperModel.add_word_timestamps(
            self,
            [row.segments],
            row.tokenizer,
            None,
            row.item.frames,
            options.prepend_punctuations,
            options.append_punctuations,
            last_speech_timestamp=0.0,
        )
        words = (word for segment in row.segments for word in segment["words"])
        for word, aligned in zip(words, (one for one in self._alignment if one["word"]), strict=False):
            word["tokens"] = aligned["tokens"]

    def find_alignment(self, *_: object) -> list[list[RawFields]]:
        """Return the precomputed alignment; the arguments are ignored."""
        return [self._alignment]


def to_detection(scores: Sequence[tuple[str, float]], allowed: Sequence[str]) -> LanguageDetection:
    """Return the most probable language. With an allow-list, only its languages count and share the probability.

    Args:
        scores: language tokens with their probabilities, the most probable first.
        allowed: codes of the allowed languages; empty for all.
    """
    candidates = [(token[2:-2], probability) for token, probability in scores]
    if allowed:
        candidates = [(language, probability) for language, probability in candidates if language in allowed]
        total = sum(probability for _, probability in candidates) or 1.0
        candidates = [(language, probability / total) for language, probability in candidates]
    return LanguageDetection(*candidates[0], all_probabilities=tuple(candidates))


def to_decoded(decoded_row: DecodedRow, encoding: Encoding) -> Decoded:
    """Convert a row to the engine's result; segments are in seconds from the start of the chunk."""
    text: str = decoded_row.tokenizer.decode(decoded_row.tokens).strip()
    compression_ratio = get_compression_ratio(text)
    return Decoded(
        text=text,
        segments=tuple(_segments(decoded_row, compression_ratio)),
        temperature=decoded_row.item.temperature,
        avg_logprob=decoded_row.avg_logprob,
        compression_ratio=compression_ratio,
        no_speech_prob=decoded_row.no_speech_prob,
        language=decoded_row.tokenizer.language_code,
        detection=decoded_row.detection,
        full_window=encoding.frames == FULL_WINDOW_FRAMES,
        encoding=encoding,
    )


def _segments(decoded_row: DecodedRow, compression_ratio: float) -> Iterator[Segment]:
    for raw in decoded_row.segments:
        yield Segment(
            id=0,
            seek=0,
            start=float(raw["start"]),
            end=float(raw["end"]),
            text=decoded_row.tokenizer.decode(raw["tokens"]),
            tokens=tuple(raw["tokens"]),
            temperature=decoded_row.item.temperature,
            avg_logprob=decoded_row.avg_logprob,
            compression_ratio=compression_ratio,
            no_speech_prob=decoded_row.no_speech_prob,
            words=tuple(map(_word, raw.get("words", ()))),
        )


def _word(raw: RawFields) -> AlignedWord:
    times = float(raw["start"]), float(raw["end"])
    return AlignedWord(*times, raw["word"], float(raw["probability"]), tuple(raw.get("tokens", ())))
