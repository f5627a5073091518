"""The time of day jumps by an hour under load, forth and back: nothing is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.application import CLOCK_OFFSET_FILE
from tests.chaos.applications import Applications, applications, check_each_is_done, submit_all, unfinished
from tests.chaos.service import Receiver
from tests.support.mariadb import MariaDbServer
from tests.support.waiting import eventually

TASKS = 60
HOUR_S = 3600.0
JUMPS = 3

pytestmark = pytest.mark.timeout(120, func_only=True)


class Jumps:
    """Submits tasks to applications and moves their clock while they work.

    Args:
        file: where the applications read how far their clock is off.
    """

    def __init__(self, running: Applications, file: Path, receiver: Receiver) -> None:
        self._running, self._file, self._receiver = running, file, receiver
        file.write_text("0")

    def to(self, offset_s: float, when_left: int) -> None:
        """Move the clock once only so many tasks are left."""
        eventually(lambda: unfinished(self._running.url) <= when_left, f"at most {when_left} are left")
        self._replace(offset_s)

    def _replace(self, offset_s: float) -> None:
        partial = self._file.with_suffix(".new")
        partial.write_text(str(offset_s))
        partial.replace(self._file)  # a reader sees the one or the other

    def submit(self) -> None:
        asyncio.run(submit_all(self._running.url, self._running.folder, self._receiver.url, TASKS))

    def check(self, processes: int) -> None:
        """Check that each task has one result and one callback. A jump forth ends leases: work may begin again."""
        for _ in range(processes):
            self._running.start()
        self.to(HOUR_S, 3 * TASKS // 4)
        self.to(-HOUR_S, TASKS // 2)
        self.to(0.0, TASKS // 4)
        eventually(lambda: not unfinished(self._running.url), "every task has ended")
        tasks = check_each_is_done(self._running, self._receiver, TASKS)
        assert max(task.losses for task in tasks) <= JUMPS


def test_this_machines_clock_jumps(tmp_path: Path, receiver: Receiver) -> None:
    """On SQLite, where all times are this machine's."""
    file, folder = tmp_path / "clock", tmp_path / "media"
    folder.mkdir()
    url = f"sqlite+aiosqlite:///{tmp_path / 'tasks.db'}"
    with applications(url, folder, {CLOCK_OFFSET_FILE: str(file)}) as running:
        jumps = Jumps(running, file, receiver)
        jumps.submit()
        jumps.check(processes=1)


def test_the_database_servers_clock_jumps(database: MariaDbServer, tmp_path: Path, receiver: Receiver) -> None:
    """On MariaDB, whose time all applications follow: it jumps for all of them at once."""
    file, folder = tmp_path / "clock", tmp_path / "media"
    folder.mkdir()
    url = database.create_database("jumps")
    with applications(url, folder, {CLOCK_OFFSET_FILE: str(file)}) as running:
        jumps = Jumps(running, file, receiver)
        jumps.submit()
        jumps.check(processes=2)
