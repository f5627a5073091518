from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.tasks.lifecycle import (
    attempts_exhausted,
    claim_order,
    message_id,
    refuse_fixed_fields,
    was_transcribed_under,
)
from pipeline.domain.tasks.task import Priority, Stage, Status, Task

NOW = datetime(2025, 6, 1, tzinfo=UTC)


def order(rank: int, waited_s: float, task_id: int = 1) -> tuple[int, datetime, int]:
    return claim_order(task_id, rank, NOW - timedelta(seconds=waited_s), NOW, ageing_s=600)


@pytest.mark.parametrize(
    ("rank", "waited_s", "lifted"), [(2, 0, 2), (2, 599.9, 2), (2, 600, 1), (2, 1200, 0), (2, 1800, -1), (0, 600, -1)]
)
def test_each_period_lifts_by_a_rank(rank: int, waited_s: float, lifted: int) -> None:
    assert order(rank, waited_s)[0] == lifted


def test_a_task_from_the_future_of_another_machine_keeps_its_rank() -> None:
    assert order(1, waited_s=-5)[0] == 1


def test_equals_go_by_age_then_id() -> None:
    assert sorted([order(1, 5, 3), order(1, 7, 4), order(1, 5, 2)]) == [order(1, 7, 4), order(1, 5, 2), order(1, 5, 3)]


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_within_a_rank_age_alone_decides(first_s: float, second_s: float) -> None:
    # With this order the store can read an index of each rank and merge the heads.
    older, younger = max(first_s, second_s), min(first_s, second_s)
    assert order(1, older) <= order(1, younger)


def test_a_message_id_tells_runs_tasks_and_databases_apart() -> None:
    ids = {message_id(1, 1, "a"), message_id(1, 2, "a"), message_id(2, 1, "a"), message_id(1, 1, "b")}

    assert len(ids) == 4
    assert message_id(1, 1, "a") in ids
    assert max(map(len, {message_id(2**63 - 1, 2**31 - 1, "a" * 255)})) <= 64  # the column's width


def test_a_dead_letter_says_how_often_it_was_lost() -> None:
    assert attempts_exhausted(3).code == "attempts_exhausted"
    assert "lost 3 times in a row" in attempts_exhausted(3).message
    assert "lost once;" in attempts_exhausted(1).message


def test_fields_the_store_moves_are_refused_by_name() -> None:
    refuse_fixed_fields(["stage", "language"])
    with pytest.raises(TypeError, match="fence, status"):
        refuse_fixed_fields(["status", "stage", "fence"])


@pytest.mark.parametrize(
    ("status", "stage", "fence", "expected"),
    [
        (Status.COMPLETED, None, 4, True),
        (Status.COMPLETED, None, 5, False),
        (Status.PROCESSING, Stage.SUMMARIZING, 5, True),
        (Status.PROCESSING, Stage.SUMMARIZING, 4, False),
        (Status.PROCESSING, Stage.TRANSCRIBING, 4, False),
        (Status.CANCELLED, None, 5, False),
    ],
)
def test_a_transcript_belongs_to_the_claim_that_stored_it(
    status: Status, stage: Stage | None, fence: int, expected: bool
) -> None:
    task = Task(
        id=1,
        status=status,
        stage=stage,
        fence=fence,
        priority=Priority.NORMAL,
        engine_name=EngineName.FASTER_WHISPER,
        options=TranscriptionOptions(),
        media_prefix="m",
        created_at=NOW,
        updated_at=NOW,
    )
    assert was_transcribed_under(4, task) is expected
