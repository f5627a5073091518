"""Reports of the end of tasks, which a transcript or a summary may bring about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.domain.tasks.task import Task
from pipeline.ports import Clock, Metrics
from pipeline.usecases.task_notifier import TaskNotifier


@dataclass(frozen=True, slots=True)
class TaskCompletion:
    """The reports that are due when an attempt or a summary has ended.

    Attributes:
        notifier: wakes the task's watchers.
        metrics: counts and times the finished tasks.
        clock: tells the age of a task.
        on_finished: called whenever a task has finished, since its callback is due then.
    """

    notifier: TaskNotifier
    metrics: Metrics
    clock: Clock
    on_finished: Callable[[], None] = lambda: None

    def report(self, task: Task) -> None:
        """Report that an attempt or a summary has ended, whether or not the task has finished."""
        if not task.status.finished:
            self.notifier.notify(task.id)
            return
        self.metrics.count("tasks_finished", status=task.status)
        age_s = (self.clock.now() - task.created_at).total_seconds()
        self.metrics.observe("task_seconds", age_s, priority=task.priority)
        self.on_finished()
        self.notifier.notify_end(task.id)
