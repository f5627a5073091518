"""Clients: the holders of API keys, their scopes and their quotas."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil

from pipeline.errors import QuotaExceeded

DAY = timedelta(days=1)
"""The sliding window in which audio is counted."""

USAGE_RETENTION = 2 * DAY
"""Age up to which usage is stored: longer than the window, so that a clock that jumps and returns loses none."""

QUEUE_RETRY_S = 30
"""Seconds until a client should try again if its own tasks have to finish first."""


class Scope(StrEnum):
    """The scope of a key."""

    READ = "read"
    """Requests that change nothing: tasks, results, subtitles, models."""
    WRITE = "write"
    """Uploading files, and creating, cancelling, retrying and deleting tasks."""
    ADMIN = "admin"
    """Both, for the tasks of all clients."""


@dataclass(frozen=True, slots=True)
class Client:
    """The holder of one API key.

    Attributes:
        name: name that its tasks are stored with.
        scopes: its scopes.
        max_queued_tasks: most tasks of it that may wait at the same time; ``None``: any number.
        max_audio_s: most seconds of its audio that may be decoded in 24 hours; ``None``: any number.
    """

    name: str
    scopes: frozenset[Scope]
    max_queued_tasks: int | None = None
    max_audio_s: float | None = None

    def may(self, scope: Scope) -> bool:
        """Return whether the client has the scope."""
        return scope in self.scopes or self.sees_all_tasks

    @property
    def sees_all_tasks(self) -> bool:
        """True if the client may see the tasks of other clients."""
        return Scope.ADMIN in self.scopes

    @property
    def limited(self) -> bool:
        """True if the client has a quota."""
        return self.max_queued_tasks is not None or self.max_audio_s is not None


@dataclass(frozen=True, slots=True)
class ClientLoad:
    """A client's tasks in the queue, and the audio that it has used in the last 24 hours.

    Attributes:
        queued_tasks: number of its waiting tasks.
        audio_s: seconds of its audio that were decoded, counted part by part.
        oldest_at: time at which the first of them were counted.
        pending_s: estimated seconds of its accepted recordings that are still to be decoded.
    """

    queued_tasks: int = 0
    audio_s: float = 0.0
    oldest_at: datetime | None = None
    pending_s: float = 0.0


@dataclass(frozen=True, slots=True)
class AudioCharge:
    """The charge for a part of a recording against its client's quota.

    Attributes:
        audio_s: seconds to charge, by ``decoding_cost.charged_audio_s``.
        max_audio_s: the client's limit for 24 hours; ``None``: no limit.
    """

    audio_s: float
    max_audio_s: float | None = None


SECONDS_PER_BYTE = 1 / 16_000
"""Seconds of a recording per byte, at 128 kbit/s, until a finished recording allows a better estimate."""


def refuse_another_upload(client: Client, open_uploads: int) -> None:
    """Raise ``QuotaExceeded`` if the client may not start another upload, since each becomes a waiting task."""
    if client.max_queued_tasks is not None and open_uploads >= client.max_queued_tasks:
        raise QuotaExceeded(
            f"{open_uploads:,} of your uploads are under way already, and your limit is {client.max_queued_tasks:,}.",
            QUEUE_RETRY_S,
        )


def refuse_over_quota(client: Client, load: ClientLoad, now: datetime) -> None:
    """Raise ``QuotaExceeded`` if the client may not have another task now."""
    if client.max_queued_tasks is not None and load.queued_tasks >= client.max_queued_tasks:
        raise QuotaExceeded(
            f"{load.queued_tasks:,} of your tasks wait already, and your limit is {client.max_queued_tasks:,}.",
            QUEUE_RETRY_S,
        )
    refuse_more_audio(client.max_audio_s, load, now)
    if client.max_audio_s is not None and load.audio_s + load.pending_s >= client.max_audio_s:
        raise QuotaExceeded(
            f"{_usage_sentence(client.max_audio_s, load)}, and your waiting recordings have about "
            f"{load.pending_s / 60:,.1f} more.",
            QUEUE_RETRY_S,
        )


def refuse_more_audio(max_audio_s: float | None, load: ClientLoad, now: datetime) -> None:
    """Raise ``QuotaExceeded`` if no more of the client's audio may be decoded now."""
    if max_audio_s is not None and load.audio_s >= max_audio_s:
        raise QuotaExceeded(f"{_usage_sentence(max_audio_s, load)}.", _seconds_until_room(load, now))


def _usage_sentence(max_audio_s: float, load: ClientLoad) -> str:
    return f"You have used {load.audio_s / 60:,.1f} of {max_audio_s / 60:,.1f} minutes of audio in the last 24 hours"


def _seconds_until_room(load: ClientLoad, now: datetime) -> int:
    """Return the seconds until the oldest recording leaves the window."""
    left = min((load.oldest_at or now) + DAY - now, DAY)  # a clock that was ahead has stored times in the future
    return max(1, ceil(left.total_seconds()))
