from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.tasks.task import Priority, Status, Task

NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)
TASK = Task(
    id=1,
    status=Status.PROCESSING,
    priority=Priority.NORMAL,
    engine_name=EngineName.FASTER_WHISPER,
    options=TranscriptionOptions(),
    media_prefix="m",
    created_at=NOW,
    updated_at=NOW,
)


def test_a_task_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        TASK.status = Status.COMPLETED  # type: ignore[misc]


def test_finished_means_that_nothing_more_happens_by_itself() -> None:
    assert {status for status in Status if status.finished} == {Status.COMPLETED, Status.FAILED, Status.CANCELLED}


def test_priorities_are_served_in_order() -> None:
    assert sorted(Priority, key=lambda priority: priority.rank) == [Priority.HIGH, Priority.NORMAL, Priority.LOW]
    assert Priority.HIGH.rank == 0


def test_words_of_the_contract_are_the_values() -> None:
    assert [str(status) for status in Status] == ["queued", "processing", "completed", "failed", "cancelled"]
    assert [str(priority) for priority in Priority] == ["high", "normal", "low"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": Status.QUEUED}, None),
        ({"audio_total_s": 100.0, "audio_done_s": 50.0}, None),
        ({"audio_total_s": 100.0, "audio_done_s": 50.0, "split_done": True}, 0.5),
        ({"audio_total_s": 100.0, "audio_done_s": 100.1, "split_done": True}, 1.0),
        ({"audio_total_s": 0.0, "split_done": True}, 1.0),
        ({"status": Status.COMPLETED}, 1.0),
        ({"status": Status.FAILED, "audio_total_s": 4.0, "audio_done_s": 1.0, "split_done": True}, 0.25),
    ],
)
def test_progress(changes: dict[str, Any], expected: float | None) -> None:
    assert replace(TASK, **changes).progress == expected


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.booleans(), st.sampled_from(Status))
def test_progress_is_a_fraction_and_never_guessed(done: float, total: float, split: bool, status: Status) -> None:
    task = replace(TASK, status=status, audio_done_s=done, audio_total_s=total, split_done=split)

    if task.progress is None:
        assert not split
    else:
        assert 0 <= task.progress <= 1
        assert split or status is Status.COMPLETED


def test_processing_time_is_that_of_the_last_attempt() -> None:
    started = replace(TASK, started_at=NOW + timedelta(seconds=5))

    assert TASK.processing_s is None
    assert started.processing_s is None
    assert replace(started, finished_at=NOW + timedelta(seconds=12.5)).processing_s == 7.5
