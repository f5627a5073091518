from __future__ import annotations

from pipeline.domain.audio.spans import Chunk, Span
from pipeline.domain.tasks.exhaustion import attempts_message, decoding_message, splitting_message, summary_message


def test_each_message_names_the_work_and_the_deaths() -> None:
    chunk = Chunk(index=3, part=0, part_start=0, spans=(Span(480_000, 640_000),))
    assert attempts_message(3) == "The process that worked on this recording died 3 times."
    assert splitting_message(3, 59.6) == (
        "The process that prepared the recording died 3 times in a row, with its first 60 seconds prepared."
    )
    assert decoding_message(chunk, 2) == (
        "The process that decoded the audio from 30.0 s to 40.0 s died 2 times in a row."
    )
    assert summary_message(3) == "The process that wrote this summary died 3 times."
