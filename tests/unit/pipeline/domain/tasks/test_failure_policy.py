from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.tasks.failure_policy import MAX_RETRY_AFTER_S, MAX_WAIT_S, FailurePolicy
from pipeline.domain.tasks.task import Priority, Status, Task, TaskError
from pipeline.errors import (
    MediaUndecodable,
    MurmurationError,
    PreparedAudioLost,
    PrivateOrRemoved,
    QuotaExceeded,
    RateLimited,
    ReplicaLost,
    SourceTooLarge,
    SourceUnreachable,
    StorageFull,
    StorageUnavailable,
    UrlNotAllowed,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TASK = Task(
    id=7,
    status=Status.PROCESSING,
    priority=Priority.NORMAL,
    engine_name=EngineName.FASTER_WHISPER,
    options=TranscriptionOptions(),
    media_prefix="m",
    created_at=NOW,
    updated_at=NOW,
    attempts=1,
)
POLICY = FailurePolicy(2.0, 3, (60.0, 300.0), random=lambda: 1.0)


@pytest.mark.parametrize(("failures", "delay_s"), [(1, 2.0), (2, 4.0), (3, None)])
def test_a_failure_is_tried_again_up_to_the_limit(failures: int, delay_s: float | None) -> None:
    decision = POLICY.decide(TASK, SourceUnreachable("No answer."), failures)
    assert (decision.delay_s, decision.waits) == (delay_s, False)
    assert decision.reason == TaskError("source_unreachable", "No answer.")


@pytest.mark.parametrize(
    "error",
    [
        MediaUndecodable("No decoder."),
        UrlNotAllowed("An inside address.", "file_url"),
        PrivateOrRemoved("It is private."),
        SourceTooLarge("Too large."),
    ],
)
def test_an_error_that_another_attempt_would_end_with_too_is_final(error: MurmurationError) -> None:
    decision = POLICY.decide(TASK, error, 1)
    assert (decision.delay_s, decision.reason.code) == (None, error.code)
    assert decision.drops_media is isinstance(error, MediaUndecodable)


@pytest.mark.parametrize(
    ("failures", "retry_after_s", "delay_s"),
    [(1, None, 60.0), (1, 3600.0, 3600.0), (1, 1e9, MAX_RETRY_AFTER_S), (2, None, 300.0), (3, 3600.0, None)],
)
def test_a_rate_limit_is_waited_for(failures: int, retry_after_s: float | None, delay_s: float | None) -> None:
    assert POLICY.decide(TASK, RateLimited("Too often.", retry_after_s), failures).delay_s == delay_s


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (StorageFull("The disk is full."), "Waiting for space: the disk is full."),
        (StorageUnavailable("It is away."), "Waiting for the media store: it is away."),
        (QuotaExceeded("You have used it up.", 0), "Waiting for your quota: you have used it up."),
    ],
)
def test_a_cause_that_ends_by_itself_is_waited_for_without_end(error: MurmurationError, message: str) -> None:
    decision = POLICY.decide(replace(TASK, attempts=100), error, 100)
    assert (decision.waits, decision.delay_s, decision.reason.message) == (True, MAX_WAIT_S, message)


def test_a_quota_names_the_time_at_which_audio_can_be_used_again() -> None:
    assert POLICY.decide(TASK, QuotaExceeded("Used.", 400), 1).delay_s == 400
    assert POLICY.decide(TASK, QuotaExceeded("Used.", 86_400), 1).delay_s == MAX_WAIT_S


def test_a_task_with_a_connected_client_does_not_wait() -> None:
    decision = POLICY.decide(replace(TASK, awaited_until=NOW), StorageFull("The disk is full."), 3)
    assert (decision.waits, decision.delay_s) == (False, None)
    assert decision.reason == TaskError("storage_full", "The disk is full.")


@pytest.mark.parametrize("error", [StorageFull("Full."), PreparedAudioLost("A part is missing.")])
def test_prepared_audio_that_takes_space_or_is_lost_is_deleted(error: MurmurationError) -> None:
    decision = POLICY.decide(TASK, error, 1)
    assert (decision.drops_prepared, decision.drops_media) == (True, False)


def test_a_process_that_died_each_time_has_its_own_code() -> None:
    assert POLICY.decide(TASK, ReplicaLost("A replica died."), 2).reason.code == "replica_lost"
    assert POLICY.decide(TASK, ReplicaLost("A replica died."), 3).reason.code == "attempts_exhausted"


def test_a_defect_shows_nothing_of_its_message() -> None:
    decision = POLICY.decide(TASK, ZeroDivisionError("/secret/path"), 1)
    assert decision.is_defect
    assert "/secret/path" not in decision.reason.message
    assert decision.delay_s == 2.0
