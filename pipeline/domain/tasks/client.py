"""Who calls, what they may do, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil

from pipeline.errors import QuotaExceeded

DAY = timedelta(days=1)
"""The window in which audio is counted; it slides."""

USAGE_RETENTION = 2 * DAY
"""How long it is remembered: a clock that jumps forth and back must not forget what still counts."""

QUEUE_RETRY_S = 30
"""When to ask again, in seconds, where a client's own tasks have to make room."""


class Scope(StrEnum):
    """What a key opens."""

    READ = "read"
    """Tasks, results, subtitles, models: whatever changes nothing."""
    WRITE = "write"
    """Uploads, new tasks, cancel, retry, delete."""
    ADMIN = "admin"
    """Both, and everybody's tasks."""


@dataclass(frozen=True, slots=True)
class Client:
    """The holder of one key.

    Attributes:
        name: what its tasks are marked with.
        scopes: what it may do.
        max_queued_tasks: how many of its tasks may wait at the same time; ``None``: any number.
        max_audio_s: seconds of audio that may be taken from it in 24 hours; ``None``: any number.
    """

    name: str
    scopes: frozenset[Scope]
    max_queued_tasks: int | None = None
    max_audio_s: float | None = None

    def may(self, scope: Scope) -> bool:
        """Whether the scope is among its own."""
        return scope in self.scopes or self.sees_all_tasks

    @property
    def sees_all_tasks(self) -> bool:
        """Whether other clients' tasks exist for it."""
        return Scope.ADMIN in self.scopes

    @property
    def limited(self) -> bool:
        """Whether there is anything to count."""
        return self.max_queued_tasks is not None or self.max_audio_s is not None


@dataclass(frozen=True, slots=True)
class ClientLoad:
    """What a client has in the queue, and the audio it has used in the last 24 hours.

    Attributes:
        queued_tasks: its tasks that wait.
        audio_s: seconds of its audio that were decoded, counted part by part as they are.
        oldest_at: when the first of that was counted.
        pending_s: estimated seconds of its accepted recordings that are still to be decoded.
    """

    queued_tasks: int = 0
    audio_s: float = 0.0
    oldest_at: datetime | None = None
    pending_s: float = 0.0


@dataclass(frozen=True, slots=True)
class AudioCharge:
    """What a part of a recording takes from its client.

    Attributes:
        audio_s: seconds that count, by ``decoding_cost.charged_audio_s``.
        max_audio_s: the client's limit for 24 hours; ``None``: it has none.
    """

    audio_s: float
    max_audio_s: float | None = None


SECONDS_PER_BYTE = 1 / 16_000
"""Length of a recording for its size, 128 kbit/s, where none was finished yet from which it could be told."""


def refuse_another_upload(client: Client, open_uploads: int) -> None:
    """Raises ``QuotaExceeded`` if the client may not begin another upload: each is to become a task that waits."""
    if client.max_queued_tasks is not None and open_uploads >= client.max_queued_tasks:
        raise QuotaExceeded(
            f"{open_uploads:,} of your uploads are under way already, and your limit is {client.max_queued_tasks:,}.",
            QUEUE_RETRY_S,
        )


def refuse_over_quota(client: Client, load: ClientLoad, now: datetime) -> None:
    """Raises ``QuotaExceeded`` if the client may not have another task now."""
    if client.max_queued_tasks is not None and load.queued_tasks >= client.max_queued_tasks:
        raise QuotaExceeded(
            f"{load.queued_tasks:,} of your tasks wait already, and your limit is {client.max_queued_tasks:,}.",
            QUEUE_RETRY_S,
        )
    refuse_more_audio(client.max_audio_s, load, now)
    if client.max_audio_s is not None and load.audio_s + load.pending_s >= client.max_audio_s:
        raise QuotaExceeded(
            f"{_usage_sentence(client.max_audio_s, load)}, and your recordings that wait have about "
            f"{load.pending_s / 60:,.1f} more.",
            QUEUE_RETRY_S,
        )


def refuse_more_audio(max_audio_s: float | None, load: ClientLoad, now: datetime) -> None:
    """Raises ``QuotaExceeded`` if no more of the client's audio may be decoded now."""
    if max_audio_s is not None and load.audio_s >= max_audio_s:
        raise QuotaExceeded(f"{_usage_sentence(max_audio_s, load)}.", _seconds_until_room(load, now))


def _usage_sentence(max_audio_s: float, load: ClientLoad) -> str:
    return f"You have used {load.audio_s / 60:,.1f} of {max_audio_s / 60:,.1f} minutes of audio in the last 24 hours"


def _seconds_until_room(load: ClientLoad, now: datetime) -> int:
    """When the oldest recording leaves the window."""
    left = min((load.oldest_at or now) + DAY - now, DAY)  # a clock that was ahead has put its marks into the future
    return max(1, ceil(left.total_seconds()))
