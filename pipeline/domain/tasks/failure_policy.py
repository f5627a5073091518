"""The rules for an attempt that failed: the error that is stored, and when the task is tried again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.domain.retry import Backoff, RetrySchedule, UnlimitedBackoff
from pipeline.domain.tasks.exhaustion import attempts_message
from pipeline.domain.tasks.task import Task, TaskError
from pipeline.errors import (
    AttemptsExhausted,
    LinkError,
    MediaError,
    MurmurationError,
    PreparedAudioLost,
    QuotaExceeded,
    RateLimited,
    RecordUnreadable,
    ReplicaLost,
    RequestError,
    SourceTooLarge,
    StorageFull,
    StorageUnavailable,
)

MAX_RETRY_AFTER_S = 6 * 3600.0
"""Upper bound of the delay that a site can ask for with ``Retry-After``."""

FINAL_ERRORS = (MediaError, RequestError, LinkError, SourceTooLarge, AttemptsExhausted)
"""Errors that another attempt would end with too."""

WAITABLE_ERRORS: Mapping[type[MurmurationError], str] = {
    StorageFull: "Waiting for space",
    StorageUnavailable: "Waiting for the media store",
    QuotaExceeded: "Waiting for your quota",
}
"""Errors whose cause ends by itself, and how the waiting task's message begins. Such an attempt is not counted."""

PREPARED_LOST_ERRORS = (StorageFull, PreparedAudioLost, RecordUnreadable)
"""Errors after which prepared audio is deleted: to free space, or because part of it is missing or its rows are
damaged. The recording is kept."""

MAX_BACKOFF_S = 300.0
"""Upper bound of the delay between two counted attempts."""

MAX_WAIT_S = 600.0
"""Longest wait of a task before its next attempt, whatever it waits for: the end of a cause is not announced."""


@dataclass(frozen=True, slots=True)
class FailureDecision:
    """The consequences of an attempt that failed.

    Attributes:
        reason: the error to store.
        delay_s: seconds until the next attempt; ``None``: there is none, and the task has failed.
        waits: the task waits for the end of a cause, and the attempt is not counted.
        drops_prepared: the prepared audio is deleted, and made again by the next attempt.
        drops_media: the recording is deleted too, since no retry could decode it.
    """

    reason: TaskError
    delay_s: float | None
    waits: bool
    drops_prepared: bool
    drops_media: bool

    @property
    def is_defect(self) -> bool:
        """``True`` if the failure is a defect of the service."""
        return self.reason.code == MurmurationError.code


class FailurePolicy:
    """The rules of one deployment for failed attempts.

    Args:
        retry_base_s: upper bound of the first delay, in seconds; it doubles with each attempt.
        max_attempts: failed attempts in a row without progress after which a task has failed.
        rate_limit_delays_s: delays after the attempts at a recording whose site limits requests.
        random: returns random numbers in ``[0, 1)``.
    """

    def __init__(
        self,
        retry_base_s: float,
        max_attempts: int,
        rate_limit_delays_s: tuple[float, ...],
        random: Callable[[], float],
    ) -> None:
        self._max_attempts = max_attempts
        self._backoff = Backoff(base_s=retry_base_s, cap_s=MAX_BACKOFF_S, max_attempts=max_attempts)
        self._wait_backoff = UnlimitedBackoff(retry_base_s, MAX_WAIT_S)
        self._rate_limits = RetrySchedule(rate_limit_delays_s)
        self._random = random

    def decide(self, task: Task, error: Exception, failures: int) -> FailureDecision:
        """Return the consequences of a failed attempt.

        Args:
            task: the task.
            error: the error that ended the attempt.
            failures: failed attempts in a row without progress, including this one.
        """
        waits = _may_wait(task, error)
        return FailureDecision(
            reason=self._reason(error, failures, waits=waits),
            delay_s=self._wait_delay_s(error, task.attempts) if waits else self._retry_delay_s(error, failures),
            waits=waits,
            drops_prepared=isinstance(error, PREPARED_LOST_ERRORS),
            drops_media=isinstance(error, MediaError),
        )

    def _reason(self, error: Exception, failures: int, *, waits: bool) -> TaskError:
        if isinstance(error, ReplicaLost) and failures >= self._max_attempts:
            return TaskError(AttemptsExhausted.code, attempts_message(failures))
        if isinstance(error, MurmurationError):
            return TaskError(error.code, _waiting_message(error) if waits else error.message)
        return TaskError(
            MurmurationError.code, "The service failed on this task because of a defect. Its log has the details."
        )

    def _retry_delay_s(self, error: Exception, failures: int) -> float | None:
        """Return the seconds until the next attempt, or ``None`` if there is none."""
        if isinstance(error, FINAL_ERRORS):
            return None
        if isinstance(error, RateLimited):
            delay_s = self._rate_limits.delay_s(failures, self._random)
            return None if delay_s is None else max(delay_s, min(error.retry_after_s or 0.0, MAX_RETRY_AFTER_S))
        return self._backoff.delay_s(failures, self._random)

    def _wait_delay_s(self, error: Exception, attempts: int) -> float:
        """Return the seconds that a task waits for the end of the cause."""
        delay_s = self._wait_backoff.delay_s(attempts, self._random)
        if isinstance(error, QuotaExceeded):  # names the time at which audio can be used again
            return max(delay_s, min(error.retry_after_s, MAX_WAIT_S))
        return delay_s


def _may_wait(task: Task, error: Exception) -> bool:
    """Return whether the task waits for the end of the cause.

    A task whose client is connected fails instead, so that the client learns of the error at once.
    """
    return isinstance(error, tuple(WAITABLE_ERRORS)) and task.awaited_until is None


def _waiting_message(error: MurmurationError) -> str:
    prefix = next(prefix for kind, prefix in WAITABLE_ERRORS.items() if isinstance(error, kind))
    return f"{prefix}: {error.message[:1].lower()}{error.message[1:]}"
