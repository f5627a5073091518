"""Positions in a recording: 16 kHz mono audio, counted in samples of the original timeline."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE_RATE = 16_000
"""Samples per second of prepared audio; every Whisper model was trained at this rate (Radford et al., 2022, §2.2)."""

BYTES_PER_SAMPLE = 2
"""Prepared audio is signed 16-bit little-endian."""

FULL_SCALE = 32_768
"""Amplitude 1.0 in prepared audio: -1.0 is the lowest 16-bit number, 1.0 is one more than the highest."""


def to_samples(seconds: float) -> int:
    """Convert seconds to samples, rounded to the nearest."""
    return round(seconds * SAMPLE_RATE)


def to_seconds(samples: int) -> float:
    """Convert samples to seconds."""
    return samples / SAMPLE_RATE


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open range ``[start, end)`` of the original timeline, in samples."""

    start: int
    end: int

    @property
    def samples(self) -> int:
        """Length in samples."""
        return self.end - self.start

    @property
    def start_s(self) -> float:
        """Start in seconds."""
        return to_seconds(self.start)

    @property
    def end_s(self) -> float:
        """End in seconds."""
        return to_seconds(self.end)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return to_seconds(self.samples)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Audio that the model gets at once: speech spans of one recording, joined without the silence between them.

    Attributes:
        index: position among the task's chunks, from 0.
        part: number of the part of prepared audio that holds it; a chunk never lies in two parts.
        part_start: start of that part on the original timeline, in samples.
        spans: its speech spans, in order, not overlapping; together at most 30 s.
    """

    index: int
    part: int
    part_start: int
    spans: tuple[Span, ...]

    @property
    def start_s(self) -> float:
        """Start on the original timeline, in seconds."""
        return self.spans[0].start_s

    @property
    def end_s(self) -> float:
        """End on the original timeline, in seconds."""
        return self.spans[-1].end_s

    @property
    def duration_s(self) -> float:
        """Seconds of audio that the model gets: the spans, without the silence between them."""
        return to_seconds(sum(span.samples for span in self.spans))

    @property
    def byte_range(self) -> tuple[int, int]:
        """Offset and length in bytes within its part, from the start of the first span to the end of the last."""
        first, last = self.spans[0], self.spans[-1]
        return (first.start - self.part_start) * BYTES_PER_SAMPLE, (last.end - first.start) * BYTES_PER_SAMPLE

    def to_timeline(self, time_s: float, *, is_end: bool = False) -> float:
        """Convert a time within the chunk's audio to the original timeline.

        Args:
            time_s: seconds from the chunk's first sample.
            is_end: at a joint between two spans, an end belongs to the earlier one and a start to the later one.
        """
        remaining = max(0, to_samples(time_s))
        for span in self.spans:
            if remaining < span.samples or (is_end and remaining == span.samples):
                return to_seconds(span.start + remaining)
            remaining -= span.samples
        return self.end_s


def part_key(task_prefix: str, part: int) -> str:
    """Return the media key of one part of a task's prepared audio."""
    return f"{prepared_prefix(task_prefix)}/{part:05d}.s16le"


def prepared_prefix(task_prefix: str) -> str:
    """Return the media prefix of a task's prepared audio."""
    return f"{task_prefix}/pcm"
