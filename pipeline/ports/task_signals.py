"""The port through which the HTTP surface signals the Dispatcher and waits for changes of tasks."""

from __future__ import annotations

from typing import Protocol


class TaskSignals(Protocol):
    """Signals to and from the Dispatcher about tasks.

    Each is a hint, since the truth is in the database: the Dispatcher also polls, and callers read the task afterwards.
    No method raises an error if the Dispatcher can't be reached.
    """

    async def wake(self) -> None:
        """Signal that a task can be claimed. Returns at once."""
        ...

    async def watch(self, task_id: int, seen: int, timeout_s: float) -> int:
        """Return the task's latest change number once it differs from ``seen`` (-1: none), or after ``timeout_s``."""
        ...

    async def watch_end(self, task_id: int, timeout_s: float) -> None:
        """Return once the task has finished, or after ``timeout_s``."""
        ...

    async def cancel(self, task_id: int) -> None:
        """Stop the attempt at a task that was cancelled or deleted, and the writing of its summary."""
        ...
