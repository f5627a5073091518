"""Losses of what tasks depend on while they run: the database's server, and the recordings themselves."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from pathlib import Path

import pytest

from pipeline.domain.tasks.task import Status
from tests.chaos.applications import all_tasks, applications, check_each_is_done, submit_all, unfinished
from tests.chaos.service import Receiver
from tests.support.mariadb import MariaDbServer
from tests.support.waiting import eventually

IN_FLIGHT = 200
SLOW = {"MURMURATION_ASR__ENGINE": "waiting", "MURMURATION_ASR__MODEL": "waiting-2x"}
"""A batch of eight of the tiny recordings takes a fifth of a second."""

ENDED_WITHIN_S = 180.0

pytestmark = pytest.mark.timeout(300, func_only=True)


def in_flight(url: str) -> int:
    return sum(task.status is Status.PROCESSING for task in all_tasks(url, IN_FLIGHT))


def test_mariadb_is_restarted_with_200_tasks_in_flight(
    database: MariaDbServer, tmp_path: Path, receiver: Receiver
) -> None:
    url = database.create_database("in_flight")
    settings = SLOW | {"MURMURATION_DISPATCH__MAX_ACTIVE_TASKS": str(IN_FLIGHT)}
    with applications(url, tmp_path, settings) as one:
        asyncio.run(submit_all(url, tmp_path, receiver.url, IN_FLIGHT))
        one.start()
        eventually(lambda: in_flight(url) > IN_FLIGHT // 2, "most tasks are in flight")
        database.stop()
        database.start()
        eventually(lambda: not unfinished(url), "every task has ended", ENDED_WITHIN_S)
        tasks = check_each_is_done(one, receiver, IN_FLIGHT)
    assert max(task.failures for task in tasks) == 0, "an outage of the database is no failure of a task"


def test_media_deleted_under_running_tasks(tmp_path: Path, receiver: Receiver) -> None:
    """The tasks whose recordings are gone fail with that reason; the others, and the next ones, are done."""
    folder, url = tmp_path / "media", f"sqlite+aiosqlite:///{tmp_path / 'tasks.db'}"
    folder.mkdir()
    with applications(url, folder, SLOW) as one:
        asyncio.run(submit_all(url, folder, receiver.url, 40))
        one.start()
        eventually(lambda: unfinished(url) < 36, "some are done and some run")
        for number in range(0, 40, 2):
            shutil.rmtree(folder / str(number), ignore_errors=True)
        eventually(lambda: not unfinished(url), "every task has ended")
        tasks = all_tasks(url, 40)
        failed = [task for task in tasks if task.status is not Status.COMPLETED]
        assert failed, "nothing was deleted in time"
        assert all(int(task.media_prefix) % 2 == 0 for task in failed), "whose recording was kept is done"
        assert {task.status for task in failed} == {Status.FAILED}
        assert all(task.error is not None and task.error.message for task in failed)
        asyncio.run(submit_all(url, folder, receiver.url, 4))
        eventually(lambda: not unfinished(url), "what comes next is done too")
    assert Counter(task.status for task in all_tasks(url, 44))[Status.COMPLETED] >= 24
