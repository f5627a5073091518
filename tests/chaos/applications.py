"""Applications without Ray on one database, and tasks of which it is known what is to become of them."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import wave
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.tasks.task import NewTask, Status, Task
from pipeline.media.media_store import FsspecMediaStore
from pipeline.ports import TaskQuery
from pipeline.store.sql_task_store import SqlTaskStore
from pipeline.system_clock import SynchronizedClock
from tests.chaos.service import Receiver
from tests.support.builders import blocks
from tests.support.processes import ROOT
from tests.support.stores import sql_store
from tests.support.waiting import eventually

OPTIONS = TranscriptionOptions(language="en", vad_filter=False)

Answer = TypeVar("Answer")


class Applications:
    """Processes of ``tests.chaos.application`` that share a database and a folder.

    Args:
        url: of the database.
        folder: for media.
        stack: ends the processes.
        settings: variables beside those that all of them have.
    """

    def __init__(self, url: str, folder: Path, stack: ExitStack, settings: dict[str, str] | None = None) -> None:
        self.url, self.folder = url, folder
        self._stack, self._settings = stack, settings or {}

    def start(self) -> subprocess.Popen[str]:
        environment = os.environ | {
            "MURMURATION_DATABASE__URL": self.url,
            "MURMURATION_MEDIA__URL": self.folder.as_uri(),
            "MURMURATION_NETWORK__ALLOW_PRIVATE_HOSTS": '["127.0.0.1"]',
            "MURMURATION_DISPATCH__POLL_S": "0.05",
            "MURMURATION_DISPATCH__MAX_ACTIVE_TASKS": "1",  # of a priority, or as many as the engine holds: 16
            "MURMURATION_DISPATCH__LEASE_DURATION_S": "4",
            "MURMURATION_DISPATCH__HEARTBEAT_S": "0.5",
            "MURMURATION_DISPATCH__HOUSEKEEPING_S": "1",
            "MURMURATION_CALLBACK__TIMEOUT_S": "1",  # three of them and 10 s is the lease of a callback
            **self._settings,
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
        """Stop it, and return the number of chunks that it decoded."""
        process.terminate()
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        return int(output)


@contextmanager
def applications(url: str, folder: Path, settings: dict[str, str] | None = None) -> Iterator[Applications]:
    """Run applications on the database at ``url``; at the end none of them is left."""
    with ExitStack() as stack:
        yield Applications(url, folder, stack, settings)


async def submit_all(url: str, folder: Path, callback_url: str, count: int) -> None:
    """Create the tasks, each a twentieth of a second long."""
    store, media = sql_store(url, SynchronizedClock()), FsspecMediaStore(folder.as_uri())
    await store.migrate()
    for number in range(count):
        key = f"{number}/source"
        size = await media.write(key, blocks(_tiny_recording(number)))
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


def _tiny_recording(number: int) -> bytes:
    """0.05 s of sound that is different for each number, as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(16_000)
        wav.writeframes(b"".join((1000 + (number * (i % 7)) % 9000).to_bytes(2, "little") for i in range(800)))
    return file.getvalue()


async def _ask(url: str, question: Callable[[SqlTaskStore], Awaitable[Answer]]) -> Answer:
    store = sql_store(url, SynchronizedClock())
    try:
        return await question(store)
    finally:
        await store.close()


def unfinished(url: str) -> int:
    stats = asyncio.run(_ask(url, lambda store: store.stats()))
    return sum(stats.queued_tasks.values()) + stats.processing_tasks


def all_tasks(url: str, count: int) -> list[Task]:
    page = asyncio.run(_ask(url, lambda store: store.query(TaskQuery(limit=2 * count))))
    return list(page.tasks)


def check_each_is_done(applications: Applications, receiver: Receiver, count: int) -> list[Task]:
    """Check that every task has one result, owes no callback, and left no file."""
    tasks = all_tasks(applications.url, count)
    assert Counter(task.status for task in tasks) == {Status.COMPLETED: count}
    assert all(task.result is not None and task.result.text.startswith("heard ") for task in tasks)
    eventually(lambda: len({body["id"] for _, body in list(receiver.received)}) == count, "a callback for each")
    assert len({message_id for message_id, _ in receiver.received}) == count, "one message id for each"
    folder = applications.folder
    eventually(lambda: not [path for path in folder.rglob("*") if path.is_file()], "no file is left")
    return tasks
