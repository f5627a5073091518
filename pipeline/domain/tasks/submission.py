"""A submission: the validated request for a transcription, before it is a task."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.links.platforms import Link
from pipeline.domain.summaries.summary import SummaryOptions
from pipeline.domain.tasks.task import Priority, Task
from pipeline.errors import IdempotencyConflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A validated request for a transcription. The recording itself may be sent as bytes.

    ``link`` tells how to read ``file_url``; by default it is the URL of the recording itself.
    """

    options: TranscriptionOptions = field(default_factory=TranscriptionOptions)
    summary_options: SummaryOptions | None = None
    priority: Priority = Priority.NORMAL
    engine_name: EngineName = EngineName.FASTER_WHISPER
    platform: str | None = None
    callback_url: str | None = None
    file_url: str | None = None
    link: Link = field(default_factory=Link)
    awaited: bool = False
    """The task is deleted when its client stops waiting for it."""


def fingerprint(submission: Submission, media_sha256: str | None) -> str:
    """Return a SHA-256 (hex) of the submission and its recording, which does not depend on the file's name."""
    fields = asdict(submission) | {"options": submission.options.as_dict(), "media": media_sha256}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def refuse_other_submission(task: Task, submission: Submission) -> None:
    """Raise ``IdempotencyConflict`` if a resumable upload became this task with other options than the submission's."""
    earlier = Submission(
        options=task.options,
        priority=task.priority,
        engine_name=task.engine_name,
        platform=task.platform,
        callback_url=task.callback_url,
        summary_options=task.summary_options,
    )
    if earlier != submission:
        raise IdempotencyConflict(
            f"This upload became task {task.id}, with other options: upload the file again to use new ones."
        )
