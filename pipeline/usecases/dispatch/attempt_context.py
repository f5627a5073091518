"""The adapters and settings of the attempts of one Dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.ports import Clock, MediaStore, Splitter, TaskStore
from pipeline.settings import Settings
from pipeline.usecases.dispatch.chunk_scheduler import ChunkScheduler
from pipeline.usecases.dispatch.fetcher import Fetcher
from pipeline.usecases.dispatch.task_slots import TaskSlots


@dataclass(frozen=True, slots=True)
class AttemptContext:
    """The adapters and settings that all attempts share.

    Attributes:
        audio_limits: seconds of audio that a client may use in 24 hours, by client name; clients without a limit are
            absent.
        on_changed: called with the task's id whenever its record changes, to wake its watchers.
        on_finished: called with the task's id as soon as the transcript is stored, before media is deleted.
        split_slots: slots for concurrent splits.
    """

    store: TaskStore
    media: MediaStore
    fetcher: Fetcher
    splitter: Splitter
    scheduler: ChunkScheduler
    clock: Clock
    settings: Settings
    audio_limits: Mapping[str, float]
    on_changed: Callable[[int], None]
    on_finished: Callable[[int], None]
    split_slots: TaskSlots

    def max_audio_s(self, client: str | None) -> float | None:
        """Return the audio limit of a client, in seconds; ``None`` without a limit."""
        return self.audio_limits.get(client or "")
