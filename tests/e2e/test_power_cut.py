"""The power is cut in mid-work: whatever was answered with success is there afterwards, and whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.tasks.task import IdempotencyClaim, NewTask, Status
from pipeline.errors import TaskNotFound
from pipeline.store.sql_task_store import SqlTaskStore
from pipeline.store.upload_store import SqlUploadStore
from pipeline.system_clock import SystemClock
from tests.e2e.power_cut_service import content, media_store, task_store
from tests.support.power_cut import Disk, PowerCutUnavailable
from tests.support.processes import ROOT

PROMISES = 120
KINDS = {"task", "upload", "completed", "cancelled", "deleted"}

Promises = dict[str, list[dict[str, Any]]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        made = Disk(tmp_path)
    except PowerCutUnavailable as error:
        pytest.skip(str(error))
    try:
        yield made
    finally:
        made.take_out()


def test_the_stand_in_loses_what_was_not_synced(disk: Disk) -> None:
    (disk.path / "unsynced").write_bytes(b"x" * 100_000)
    with (disk.path / "synced").open("wb") as synced:
        synced.write(b"x" * 100_000)
        synced.flush()
        os.fsync(synced.fileno())
    disk.cut_power()
    disk.power_on()
    lost = disk.path / "unsynced"
    assert not lost.exists() or lost.stat().st_size == 0
    assert (disk.path / "synced").read_bytes() == b"x" * 100_000


@pytest.mark.parametrize("turn", range(2))
async def test_what_was_promised_before_a_power_cut_is_kept(disk: Disk, tmp_path: Path, turn: int) -> None:
    promises = _promises_until_cut(disk, tmp_path / "service.log", PROMISES + 37 * turn)
    assert promises.keys() >= KINDS, (tmp_path / "service.log").read_text()
    store = task_store(disk.path)
    try:
        await store.migrate()
        await _check_tasks(store, disk, promises)
        await _check_uploads(store, disk, promises["upload"])
        await _check_ended(store, promises)
    finally:
        await store.close()


def _promises_until_cut(disk: Disk, log: Path, wanted: int) -> Promises:
    """Return the promises of a service until the power went, in mid-work."""
    command = [sys.executable, "-m", "tests.e2e.power_cut_service", str(disk.path)]
    promises: Promises = defaultdict(list)
    with (
        log.open("w") as complaints,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=complaints, text=True) as service,
    ):
        try:
            assert service.stdout is not None
            lines = [service.stdout.readline() for _ in range(wanted)]
            disk.cut_power()
        finally:
            service.kill()
        lines += service.stdout.read().splitlines(keepends=True)  # given before the cut, or a lie
    assert lines[0], f"The service ended: {log.read_text()}"
    disk.power_on()
    for line in lines:
        if line.endswith("\n"):
            promise = json.loads(line)
            promises[promise.pop("kind")].append(promise)
    assert len(lines) >= wanted, f"The service ended: {log.read_text()}"
    return promises


async def _check_tasks(store: SqlTaskStore, disk: Disk, promises: Promises) -> None:
    media = media_store(disk.path)
    for promise in promises["task"]:
        task = await store.get(promise["id"])
        assert task.media_key is not None
        assert await media.read(task.media_key) == content(promise["number"])


async def _check_uploads(store: SqlTaskStore, disk: Disk, promises: list[dict[str, Any]]) -> None:
    uploads, media = SqlUploadStore(store.database, SystemClock()), media_store(disk.path)
    for promise in promises:
        upload = await uploads.get(promise["id"])
        assert upload.received_bytes >= promise["received"]
        kept = [await media.read(part.media_key) for part in await uploads.parts(upload.id)]
        whole = b"".join(kept)
        assert len(whole) == upload.received_bytes
        assert whole.startswith(b"".join(content(number) for number in promise["numbers"]))


async def _check_ended(store: SqlTaskStore, promises: Promises) -> None:
    for promise in promises["completed"]:
        task = await store.get(promise["id"], include_result=True)
        assert task.status is Status.COMPLETED
        assert task.result is not None
        assert task.result.text == "kept"
        again, is_new = await store.create(
            NewTask(media_prefix="other"), IdempotencyClaim(f"key {promise['number']}", "0" * 64)
        )
        assert (again.id, is_new) == (task.id, False)
    owed = await store.claim_callbacks("me", timedelta(minutes=5), 10_000)
    assert {message.task_id for message in owed} >= {promise["id"] for promise in promises["completed"]}
    for promise in promises["cancelled"]:
        assert (await store.get(promise["id"])).status is Status.CANCELLED
    for promise in promises["deleted"]:
        with pytest.raises(TaskNotFound):
            await store.get(promise["id"])
