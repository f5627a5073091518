"""Rows that can't be read, and a database file that goes away: the queue of everybody else goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from tests.attacks.case import Attack, Case, Scene
from tests.attacks.service import ATTACKER

CREATE = "/api/whisper/tasks/create"
QUERY = "/api/whisper/tasks/query"

SPOILT = {
    "priority_rank": 7,
    "options": "{not json",
    "status": "pondering",
    "engine_name": "tomorrow",
    "task_type": "sing",
    "created_at": "not a time",
    "tracks": "[[[",
}
"""A value that can't be read, for each column that becomes one of the domain."""


def spoil(column: str) -> Attack:
    """Return an attack that leaves one waiting task with an unreadable column, as a newer version might."""

    async def attack(scene: Scene) -> None:
        task_id = await _waiting_task(scene)
        with scene.target.rows() as rows:
            rows.execute(
                f"UPDATE tasks SET {column} = ?, available_at = NULL, "
                f"status = CASE WHEN ? = 'status' THEN ? ELSE 'queued' END WHERE id = ?",
                (SPOILT[column], column, SPOILT[column], task_id),
            )
        async with scene.target.async_client(ATTACKER, 10.0) as client:
            scene.begin()
            await asyncio.sleep(2.0)
            answer = await client.get("/api/whisper/tasks/result", params={"task_id": task_id})
            listed = await client.post(QUERY, json={"status": None, "priority": None, "has_result": None})
            scene.notes.append(f"its result: {answer.status_code}; query: {listed.status_code}")
            if listed.status_code >= 500:
                scene.flaws.append(f"tasks/query answers {listed.status_code}")
            await scene.hold()
            ready = await client.get("/api/health/ready")
            scene.notes.append(f"ready: {ready.status_code}")

    return attack


async def _waiting_task(scene: Scene) -> int:
    """Create a task that stays waiting: its source sends a byte at a time."""
    async with scene.target.async_client(ATTACKER) as client:
        answer = await client.post(CREATE, params={"file_url": scene.site.url("/drip", "127.0.0.3")})
        task_id = int(answer.raise_for_status().json()["data"]["id"])
        await client.post("/api/whisper/tasks/cancel", params={"task_id": task_id})
        return task_id


async def lose_database(scene: Scene) -> None:
    """Delete the database file while the service runs."""
    for path in _files(scene):
        path.unlink(missing_ok=True)
    await _expect_unavailable(scene)


async def replace_database(scene: Scene) -> None:
    """Put another, empty database in the file's place, as a restored backup would be."""
    for path in _files(scene):
        path.unlink(missing_ok=True)
    scene.target.database.with_suffix(".new").touch()
    scene.target.database.with_suffix(".new").replace(scene.target.database)
    await _expect_unavailable(scene)


def _files(scene: Scene) -> list[Path]:
    database = scene.target.database
    return [database, *(database.with_name(f"{database.name}{suffix}") for suffix in ("-wal", "-shm"))]


async def _expect_unavailable(scene: Scene) -> None:
    """Nothing may be accepted that the next start will not know."""
    await asyncio.sleep(3.0)
    scene.begin()
    async with scene.target.async_client(ATTACKER, 10.0) as client:
        for _ in range(3):
            try:
                files = {"file_upload": ("clip.wav", scene.site.clip)}
                status = (await client.post(CREATE, files=files)).status_code
                ready = (await client.get("/api/health/ready")).status_code
            except httpx.HTTPError as error:
                scene.notes.append(type(error).__name__)
                continue
            scene.notes.append(f"create {status}, ready {ready}")
            if status != httpx.codes.SERVICE_UNAVAILABLE or ready != httpx.codes.SERVICE_UNAVAILABLE:
                scene.flaws.append(f"without its database: create {status}, ready {ready}")
            await asyncio.sleep(1.0)
    await scene.hold()


def _row(column: str) -> Case:
    return Case(
        f"row-{column}",
        f"a row whose {column} can't be read",
        spoil(column),
        clip_limit_s=15.0,
        spoils=True,
        quick=column in ("priority_rank", "options"),
    )


CASES = (
    *map(_row, SPOILT),
    Case("database-deleted", "the database file is deleted", lose_database, clips=0, spoils=True),
    Case("database-replaced", "another database takes its place", replace_database, clips=0, spoils=True),
)
