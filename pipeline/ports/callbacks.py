"""The port of callbacks: a finished task's record is posted to its client."""

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
    """The outcome of one attempt to deliver a callback.

    Attributes:
        delivered: the receiver answered 2xx in time.
        status_code: of the receiver's answer, if there was one.
        message: the first 512 characters of its answer (public hosts only) or the reason why there was none.
        retry_at: time of the next attempt; ``None``: the last one was final.
    """

    delivered: bool
    status_code: int | None
    message: str
    retry_at: datetime | None


class DeliveryVerdict(StrEnum):
    """The consequence of a delivery attempt for the next one."""

    DELIVERED = "delivered"
    RETRY = "retry"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class CallbackResponse:
    """A receiver's answer to a callback.

    Attributes:
        status_code: ``None`` where there was no answer.
        message: as ``DeliveryAttempt.message``.
        retry_after_s: seconds that the receiver asks to wait.
    """

    verdict: DeliveryVerdict
    status_code: int | None
    message: str
    retry_after_s: float | None = None


class CallbackSender(Protocol):
    """A sender of callbacks."""

    async def send(self, message: OutboxMessage, body: bytes) -> CallbackResponse:
        """Post a callback once, bounded in time. Whatever the receiver does is a response, never an error."""
        ...


class TaskRecordEncoder(Protocol):
    """An encoder of finished tasks as bodies of callbacks; the HTTP surface owns that shape."""

    def __call__(self, task: Task) -> bytes:
        """Return the task record as JSON."""
        ...
