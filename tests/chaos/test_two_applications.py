"""Independent applications on one MariaDB: each task is done exactly once, whoever is killed in between.

``MURMURATION_TINY_TASKS=1000 pytest tests/chaos/test_two_applications.py`` for more of them.
"""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
import wave
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pipeline.clock import FollowingClock
from pipeline.domain.options import TranscriptionOptions
from pipeline.domain.task import NewTask, Status, Task
from pipeline.media.store import FsspecMediaStore
from pipeline.ports import TaskQuery
from pipeline.store.store import SqlTaskStore
from tests.benchmarks.startup import ROOT
from tests.chaos.service import Receiver, eventually
from tests.contract.conftest import sql_store
from tests.mariadb import MariaDbServer

TASKS = int(os.environ.get("MURMURATION_TINY_TASKS", "60"))
OPTIONS = TranscriptionOptions(language="en", vad_filter=False)

pytestmark = pytest.mark.timeout(60 + TASKS // 2, func_only=True)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDbServer]:
    """A server of this module's own; without MariaDB the tests are skipped, unless they are asked for."""
    try:
        server = MariaDbServer(tmp_path_factory.mktemp("mariadb"))
    except FileNotFoundError as error:
        if os.environ.get("MURMURATION_REQUIRE_MARIADB") == "1":
            pytest.fail(f"{error} MURMURATION_REQUIRE_MARIADB=1 asks for it.")
        pytest.skip(str(error))
    with server:
        yield server


class Applications:
    """Processes that share a database and a folder."""

    def __init__(self, url: str, folder: Path, stack: ExitStack) -> None:
        self._url, self._folder, self._stack = url, folder, stack

    def start(self) -> subprocess.Popen[str]:
        environment = os.environ | {
            "MURMURATION_DATABASE__URL": self._url,
            "MURMURATION_MEDIA__URL": self._folder.as_uri(),
            "MURMURATION_NETWORK__ALLOW_PRIVATE_HOSTS": '["127.0.0.1"]',
            "MURMURATION_DISPATCH__POLL_S": "0.05",
            "MURMURATION_DISPATCH__MAX_ACTIVE_TASKS": "1",  # of a priority, or as many as the engine holds: 16
            "MURMURATION_DISPATCH__LEASE_DURATION_S": "4",
            "MURMURATION_DISPATCH__HEARTBEAT_S": "0.5",
            "MURMURATION_DISPATCH__HOUSEKEEPING_S": "1",
        }
        command = [sys.executable, "-m", "tests.chaos.application"]
        process = self._stack.enter_context(
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        )
        self._stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    @staticmethod
    def stop(process: subprocess.Popen[str]) -> int:
        """Ends it in good order; how many chunks it decoded."""
        process.terminate()
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        return int(output)


@contextmanager
def applications(database: MariaDbServer, name: str, folder: Path) -> Iterator[tuple[Applications, str]]:
    url = database.create_database(name)
    with ExitStack() as stack:
        yield Applications(url, folder, stack), url


async def submit_all(url: str, folder: Path, callback_url: str) -> None:
    """Creates the tasks, each a twentieth of a second long."""
    store, media = sql_store(url, FollowingClock()), FsspecMediaStore(folder.as_uri())
    await store.migrate()
    for number in range(TASKS):
        key = f"{number}/source"
        size = await media.write(key, _once(_tiny_recording(number)))
        await store.create(
            NewTask(
                media_prefix=str(number),
                media_key=key,
                file_size_bytes=size,
                options=OPTIONS,
                callback_url=callback_url,
            )
        )
    await store.close()


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _tiny_recording(number: int) -> bytes:
    """0.05 s of sound that is different for each number, as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(16_000)
        wav.writeframes(b"".join((1000 + (number * (i % 7)) % 9000).to_bytes(2, "little") for i in range(800)))
    return file.getvalue()


async def _ask(url: str, question: Callable[[SqlTaskStore], object]) -> object:
    store = sql_store(url, FollowingClock())
    try:
        return await question(store)  # type: ignore[misc]
    finally:
        await store.close()


def unfinished(url: str) -> int:
    stats = asyncio.run(_ask(url, lambda store: store.stats()))
    return sum(stats.queued_tasks.values()) + stats.processing_tasks  # type: ignore[attr-defined]


def all_tasks(url: str) -> list[Task]:
    page = asyncio.run(_ask(url, lambda store: store.query(TaskQuery(limit=2 * TASKS))))
    return list(page.tasks)  # type: ignore[attr-defined]


def check_each_is_done(url: str, folder: Path, receiver: Receiver) -> list[Task]:
    """Every task has one result, owes no callback, and left no file."""
    tasks = all_tasks(url)
    assert Counter(task.status for task in tasks) == {Status.COMPLETED: TASKS}
    assert all(task.result is not None and task.result.text.startswith("heard ") for task in tasks)
    eventually(lambda: len({body["id"] for _, body in list(receiver.received)}) == TASKS, "a callback for each")
    assert len({message_id for message_id, _ in receiver.received}) == TASKS, "one message id for each"
    eventually(lambda: not [path for path in folder.rglob("*") if path.is_file()], "no file is left")
    return tasks


def test_two_applications_do_each_task_exactly_once(
    database: MariaDbServer, tmp_path: Path, receiver: Receiver, record_property: Callable[[str, object], None]
) -> None:
    with applications(database, "two", tmp_path) as (pair, url):
        processes = [pair.start(), pair.start()]
        began = time.monotonic()
        asyncio.run(submit_all(url, tmp_path, receiver.url))
        eventually(lambda: not unfinished(url), "every task has ended", 60 + TASKS / 2)
        record_property("recovery_s (none: seconds for all tasks)", round(time.monotonic() - began, 1))
        tasks = check_each_is_done(url, tmp_path, receiver)
        decoded = [pair.stop(process) for process in processes]
    assert {(task.attempts, task.fence) for task in tasks} == {(1, 1)}
    assert sum(decoded) == TASKS
    assert min(decoded) > 0, "both took part"
    assert len(receiver.received) == TASKS


def test_an_application_that_is_killed_is_succeeded_by_the_other(
    database: MariaDbServer, tmp_path: Path, receiver: Receiver
) -> None:
    with applications(database, "killed", tmp_path) as (pair, url):
        asyncio.run(submit_all(url, tmp_path, receiver.url))
        victim, survivor = pair.start(), pair.start()
        eventually(lambda: unfinished(url) < TASKS, "the work has begun")
        victim.kill()
        eventually(lambda: not unfinished(url), "every task has ended", 60 + TASKS / 2)
        tasks = check_each_is_done(url, tmp_path, receiver)
        pair.stop(survivor)
    assert max(task.losses for task in tasks) <= 1
