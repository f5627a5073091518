"""Messages of the errors ``attempts_exhausted``, for work whose process died each time it was tried."""

from __future__ import annotations

from pipeline.domain.audio.spans import Chunk


def attempts_message(deaths: int) -> str:
    """Return the message of a task whose attempts ended ``deaths`` times with the death of a process."""
    return f"The process that worked on this recording died {deaths} times."


def splitting_message(deaths: int, prepared_s: float) -> str:
    """Return the message of a recording that could not be split.

    Args:
        deaths: deaths in a row without progress.
        prepared_s: seconds of prepared audio that were stored before them.
    """
    return (
        f"The process that prepared the recording died {deaths} times in a row, "
        f"with its first {prepared_s:.0f} seconds prepared."
    )


def decoding_message(chunk: Chunk, deaths: int) -> str:
    """Return the message of a chunk whose replica died ``deaths`` times in a row."""
    return (
        f"The process that decoded the audio from {chunk.start_s:.1f} s to {chunk.end_s:.1f} s died "
        f"{deaths} times in a row."
    )


def summary_message(deaths: int) -> str:
    """Return the message of a summary whose process died ``deaths`` times."""
    return f"The process that wrote this summary died {deaths} times."
