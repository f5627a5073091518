"""A finished task is told to whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pipeline.domain.tasks.task import Task


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A callback to be delivered: one per completed or failed run, with the same ``message_id`` at every attempt.

    ``attempts`` counts the attempts made before. The body is the task's record, rendered when it is sent. ``client`` is
    the task's.
    """

    id: int
    message_id: str
    task_id: int
    url: str
    attempts: int
    client: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """What came of one attempt to deliver a callback.

    Attributes:
        delivered: a 2xx came in time.
        status_code: the receiver's, if it answered.
        message: the first 512 characters of its answer (public hosts only) or why there was none.
        retry_at: when to try again; ``None`` ends it.
    """

    delivered: bool
    status_code: int | None
    message: str
    retry_at: datetime | None


class DeliveryVerdict(StrEnum):
    """What an attempt to deliver a callback means for the next one."""

    DELIVERED = "delivered"
    RETRY = "retry"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class CallbackResponse:
    """What a receiver made of a callback.

    Attributes:
        status_code: ``None`` where there was no answer.
        message: as ``DeliveryAttempt.message``.
        retry_after_s: how long the receiver asks to be left alone, in seconds.
    """

    verdict: DeliveryVerdict
    status_code: int | None
    message: str
    retry_after_s: float | None = None


class CallbackSender(Protocol):
    """Posts one callback to its receiver."""

    async def send(self, message: OutboxMessage, body: bytes) -> CallbackResponse:
        """One attempt, bounded in time. Whatever the receiver does is an answer, never an error."""
        ...


class TaskRecordEncoder(Protocol):
    """Turns a finished task into the body of its callback; the HTTP edge owns that shape."""

    def __call__(self, task: Task) -> bytes:
        """The task record as JSON."""
        ...
