from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.tasks.submission import Submission, fingerprint, refuse_other_submission
from pipeline.domain.tasks.task import Priority, Status, Task
from pipeline.errors import IdempotencyConflict

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_fingerprint_covers_the_options() -> None:
    other = Submission(options=TranscriptionOptions(beam_size=1))
    assert fingerprint(Submission(), "a") == fingerprint(Submission(), "a")
    assert len({fingerprint(Submission(), "a"), fingerprint(other, "a"), fingerprint(Submission(), "b")}) == 3


def test_an_upload_that_became_a_task_is_submitted_again_with_the_same_options_only() -> None:
    task = Task(
        id=7,
        status=Status.QUEUED,
        priority=Priority.NORMAL,
        engine_name=EngineName.FASTER_WHISPER,
        options=TranscriptionOptions(language="de"),
        media_prefix="m",
        created_at=NOW,
        updated_at=NOW,
    )
    refuse_other_submission(task, Submission(options=TranscriptionOptions(language="de")))
    for other in (Submission(), Submission(options=task.options, platform="radio")):
        with pytest.raises(IdempotencyConflict, match="task 7, with other options"):
            refuse_other_submission(task, other)
