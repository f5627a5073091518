from __future__ import annotations

import pytest

from pipeline.domain.tasks.task import NewTask
from pipeline.errors import DatabaseUnavailable
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore


async def test_a_store_that_is_away_answers_again_later() -> None:
    store = MemoryTaskStore(ManualClock())
    task, _ = await store.create(NewTask(media_prefix="a"))

    store.available = False
    for call in (store.ping(), store.get(task.id), store.stats(), store.cancel(task.id)):
        with pytest.raises(DatabaseUnavailable):
            await call
    store.available = True

    assert await store.get(task.id) == task
