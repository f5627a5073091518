"""The rules every task store follows while a task is claimed, run and ended: pure, so that no two stores can differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from pipeline.domain.tasks.task import Status, Task, TaskError

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
"""Fields of a task that its owner sets freely; all others move only with the verbs of the task store."""

CLOCK_TOLERANCE = timedelta(minutes=1)
"""Times of day that are no further apart count as one: beyond, a clock has been changed."""


def claim_order(
    task_id: int, rank: int, created_at: datetime, now: datetime, ageing_s: float
) -> tuple[int, datetime, int]:
    """Sort key of the tasks that wait: priority lifted by age, then age, then id.

    Args:
        task_id: the task.
        rank: of its priority; 0 is served first.
        created_at: when it began to wait.
        now: the time of the claim.
        ageing_s: a task is lifted by one rank for each full period of this length that it has waited. It is lifted
            without end, so that a steady stream of urgent work can't starve it.
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


def message_id(task_id: int, fence: int, media_prefix: str) -> str:
    """Id of the callback of one run, the same at every attempt to deliver it (``webhook-id`` of Standard Webhooks).

    The digest of the media prefix keeps it apart from that of another database, whose ids and fences begin at 1 too.
    """
    digest = hashlib.sha256(media_prefix.encode()).hexdigest()[:12]
    return f"msg_{task_id}_{fence}_{digest}"


def attempts_exhausted(losses: int) -> TaskError:
    """The error of a task whose owner was lost so many times in a row, and that got no further in between."""
    times = "once" if losses == 1 else f"{losses} times in a row without getting any further"
    return TaskError(
        "attempts_exhausted", f"The process that ran this task was lost {times}; retry the task to run it again."
    )


CANCEL_REFUSED = "it can't be cancelled"
RETRY_REFUSED = "only a failed or cancelled one is retried"


def refusal_sentence(task: Task, otherwise: str) -> str:
    """Why a task was not cancelled or retried, as a sentence."""
    if otherwise == RETRY_REFUSED and task.status in (Status.FAILED, Status.CANCELLED):
        return f"The recording of task {task.id} is no longer kept; create the task again with it."
    return f"Task {task.id} is {task.status}; {otherwise}."


def refuse_fixed_fields(names: Iterable[str]) -> None:
    """Raises ``TypeError`` for names that are not ``UPDATABLE_FIELDS``: a defect of the caller."""
    if fixed := sorted(set(names) - UPDATABLE_FIELDS):
        raise TypeError(f"These fields of a task can't be updated: {', '.join(fixed)}.")
