"""Claims of waiting tasks for one Dispatcher."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta

from pipeline.domain.scheduling.claim_room import claim_room, extra_room
from pipeline.domain.scheduling.claim_rule import RunningTasks
from pipeline.domain.tasks.task import Task
from pipeline.ports import TaskStore
from pipeline.settings import DispatchSettings
from pipeline.usecases.dispatch.chunk_scheduler import ChunkScheduler
from pipeline.usecases.dispatch.fetcher import Fetcher
from pipeline.usecases.dispatch.task_slots import TaskSlots

logger = logging.getLogger(__name__)


class TaskClaimer:
    """A claimer of tasks, which keeps to the limit and to the clients' shares.

    Args:
        store: the queue.
        owner: the Dispatcher's name, for the leases.
        settings: duration of a lease, and the least number of tasks at once.
        scheduler: knows the capacity of the replicas.
        fetcher: knows which tasks wait for a remote server.
        split_slots: know which tasks wait to be split.
        is_dead: returns ``True`` if the owner of a name is certainly dead.

    Attributes:
        more_may_wait: whether tasks were left in the queue because there was no room for them. If not, the end of a
            task makes no other task claimable.
    """

    def __init__(
        self,
        store: TaskStore,
        owner: str,
        settings: DispatchSettings,
        *,
        scheduler: ChunkScheduler,
        fetcher: Fetcher,
        split_slots: TaskSlots,
        is_dead: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._owner = owner
        self._lease = timedelta(seconds=settings.lease_duration_s)
        self._max_active_tasks = settings.max_active_tasks
        self._scheduler = scheduler
        self._fetcher = fetcher
        self._split_slots = split_slots
        self._is_dead = is_dead
        self.more_may_wait = True

    async def expire_leases_of_dead_owners(self) -> None:
        """End the leases of owners that died on this machine."""
        for owner in await self._store.lease_owners():
            if self._is_dead(owner):
                logger.warning("ending the leases of an owner that died", extra={"owner": owner})
                await self._store.expire_leases_of(owner)

    async def claim(self, running: Collection[Task]) -> list[Task]:
        """Claim tasks up to the limit; beyond the limit, only for clients with less than their fair share.

        Args:
            running: the tasks that the Dispatcher runs already.
        """
        limit = max(self._max_active_tasks, self._scheduler.capacity.chunks)
        room = claim_room(
            {task.id: task.priority.rank for task in running},
            limit,
            fetching=self._fetcher.active_task_ids,
            waiting=self._split_slots.waiting_ids,
        )
        self.more_may_wait = any(count <= 0 for count in room.values())
        held = Counter((task.priority.rank, task.client) for task in running)
        return await self._claim(room, RunningTasks(held)) or await self._claim(
            extra_room(room, limit), RunningTasks(held, limit)
        )

    async def _claim(self, room: Mapping[int, int], running_tasks: RunningTasks) -> list[Task]:
        """Claim tasks of the ranks that have room."""
        free = {rank: count for rank, count in room.items() if count > 0}
        if not free:
            return []
        return await self._store.claim(self._owner, self._lease, min(free.values()), list(free), running_tasks)
