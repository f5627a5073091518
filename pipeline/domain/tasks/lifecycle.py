"""The rules of every task store for claiming, running and ending tasks: pure, so that no two stores can differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from pipeline.domain.tasks.task import Stage, Status, Task, TaskError

UPDATABLE_FIELDS = frozenset(
    {
        "stage",
        "media_key",
        "file_url",
        "file_name",
        "file_size_bytes",
        "file_duration_s",
        "platform",
        "language",
        "language_probability",
        "split_done",
        "truncated",
        "tracks",
    }
)
"""Fields of a task that its owner sets freely; all others change only in the task store's own methods."""

CLOCK_TOLERANCE = timedelta(minutes=1)
"""Largest difference of two times of day that count as the same; a larger one means that a clock was changed."""


def claim_order(
    task_id: int, rank: int, created_at: datetime, now: datetime, ageing_s: float
) -> tuple[int, datetime, int]:
    """Return the sort key of a waiting task: priority raised by age, then age, then id.

    Args:
        task_id: id of the task.
        rank: rank of its priority; 0 is served first.
        created_at: time at which it began to wait.
        now: time of the claim.
        ageing_s: seconds of waiting that raise a task by one rank. There is no limit, so that a steady stream of urgent
            work can't starve it.
    """
    waited_s = max(0.0, (now - created_at).total_seconds())
    return rank - int(waited_s // ageing_s), created_at, task_id


def claimed(task: Task, owner: str, now: datetime, lease_expires_at: datetime) -> Task:
    """Return a task as a claim leaves it."""
    return replace(
        task,
        status=Status.PROCESSING,
        owner=owner,
        lease_expires_at=lease_expires_at,
        fence=task.fence + 1,
        attempts=task.attempts + 1,
        losses=task.losses + (task.status is Status.PROCESSING),
        started_at=now,
        updated_at=now,
        available_at=None,
        stage=task.first_stage,
    )


def was_transcribed_under(fence: int, task: Task) -> bool:
    """Return whether the task's transcript was stored under this fence: it is completed, or lacks only its summary."""
    if task.stage is Stage.SUMMARIZING:  # entering that stage raises the fence once
        return task.fence == fence + 1
    return task.status is Status.COMPLETED and task.fence == fence


def message_id(task_id: int, fence: int, media_prefix: str) -> str:
    """Return the id of one run's callback, the same in each delivery (``webhook-id`` of Standard Webhooks).

    The digest of the media prefix makes it differ from that of another database, whose ids and fences begin at 1 too.
    """
    digest = hashlib.sha256(media_prefix.encode()).hexdigest()[:12]
    return f"msg_{task_id}_{fence}_{digest}"


def attempts_exhausted(losses: int) -> TaskError:
    """Return the error of a task whose owner was lost ``losses`` times in a row without progress in between."""
    times = "once" if losses == 1 else f"{losses} times in a row without progress"
    return TaskError(
        "attempts_exhausted", f"The process that ran this task was lost {times}; retry the task to run it again."
    )


CANCEL_REFUSED = "it can't be cancelled"
RETRY_REFUSED = "only a failed or cancelled task can be retried"


def refusal_sentence(task: Task, otherwise: str) -> str:
    """Return a sentence that says why a task was not cancelled or retried."""
    if otherwise == RETRY_REFUSED and task.status in (Status.FAILED, Status.CANCELLED):
        return f"The recording of task {task.id} is no longer kept; create the task again with it."
    return f"Task {task.id} is {task.status}; {otherwise}."


def refuse_fixed_fields(names: Iterable[str]) -> None:
    """Raise ``TypeError`` for names outside ``UPDATABLE_FIELDS``: a defect of the caller."""
    if fixed := sorted(set(names) - UPDATABLE_FIELDS):
        raise TypeError(f"These fields of a task can't be updated: {', '.join(fixed)}.")
