"""Independent applications on one MariaDB: each task is done exactly once, whoever is killed in between.

``MURMURATION_TINY_TASKS=1000 pytest tests/chaos/test_two_applications.py`` for more of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.applications import applications, check_each_is_done, submit_all, unfinished
from tests.chaos.service import Receiver
from tests.support.mariadb import MariaDbServer
from tests.support.waiting import eventually

TASKS = int(os.environ.get("MURMURATION_TINY_TASKS", "60"))

pytestmark = pytest.mark.timeout(60 + TASKS // 2, func_only=True)


def test_two_applications_do_each_task_exactly_once(
    database: MariaDbServer, tmp_path: Path, receiver: Receiver, record_property: Callable[[str, object], None]
) -> None:
    url = database.create_database("two")
    with applications(url, tmp_path) as pair:
        processes = [pair.start(), pair.start()]
        began = time.monotonic()
        asyncio.run(submit_all(url, tmp_path, receiver.url, TASKS))
        eventually(lambda: not unfinished(url), "every task has ended", 60 + TASKS / 2)
        record_property("recovery_s (none: seconds for all tasks)", round(time.monotonic() - began, 1))
        tasks = check_each_is_done(pair, receiver, TASKS)
        decoded = [pair.stop(process) for process in processes]
    assert {(task.attempts, task.fence) for task in tasks} == {(1, 1)}
    assert sum(decoded) == TASKS
    assert min(decoded) > 0, "both took part"
    assert len(receiver.received) == TASKS


def test_an_application_that_is_killed_is_succeeded_by_the_other(
    database: MariaDbServer, tmp_path: Path, receiver: Receiver
) -> None:
    url = database.create_database("killed")
    with applications(url, tmp_path) as pair:
        asyncio.run(submit_all(url, tmp_path, receiver.url, TASKS))
        victim, survivor = pair.start(), pair.start()
        eventually(lambda: unfinished(url) < TASKS, "the work has begun")
        victim.kill()
        eventually(lambda: not unfinished(url), "every task has ended", 60 + TASKS / 2)
        tasks = check_each_is_done(pair, receiver, TASKS)
        pair.stop(survivor)
    assert max(task.losses for task in tasks) <= 1
