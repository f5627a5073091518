"""Work that is allowed and too much: one client's files, links, options and summaries beside another's short clip."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path

import httpx

from tests.attacks.case import Attack, Case, Scene
from tests.attacks.service import ATTACKER
from tests.support.recordings import flac_of_silence

CREATE = "/api/whisper/tasks/create"
SILENCE_RATE = 48_000
SILENCE_BLOCK = 4096
SILENCE_S = 9.9 * 3600
RECEIVERS = 10
LADDER = ",".join(f"{number / 10:.1f}" for number in range(10))


def long_silence() -> bytes:
    """Make a FLAC file of 6 MB that takes as long to decode as 9.9 h of speech; once."""
    path = Path(tempfile.gettempdir()) / "murmuration-silence.flac"
    if not path.exists():
        frames = int(SILENCE_S * SILENCE_RATE / SILENCE_BLOCK)
        partial = path.with_suffix(".partial")
        partial.write_bytes(flac_of_silence(frames, SILENCE_RATE, SILENCE_BLOCK))
        partial.replace(path)
    return path.read_bytes()


async def create(client: httpx.AsyncClient, media: bytes | None = None, **options: str) -> int:
    """Queue a recording, or the one that a URL among the options names; return its task's id."""
    files = None if media is None else {"file_upload": ("a.bin", media)}
    answer = await client.post(CREATE, params=options, files=files)
    return int(answer.raise_for_status().json()["data"]["id"])


async def create_many(scene: Scene, count: int, media: bytes, **options: str) -> list[int]:
    """Queue a recording as often as the service accepts it; return the ids of the tasks. Refusals are noted."""
    slots = asyncio.Semaphore(8)
    statuses: Counter[str] = Counter()

    async def one(client: httpx.AsyncClient) -> list[int]:
        async with slots:
            answer = await client.post(CREATE, params=options, files={"file_upload": ("a.bin", media)})
        statuses[str(answer.status_code)] += 1
        return [int(answer.json()["data"]["id"])] if answer.is_success else []

    async with scene.target.async_client(ATTACKER, 120.0) as client:
        created = await asyncio.gather(*(one(client) for _ in range(count)))
    if statuses["200"] < count:
        scene.note_statuses("creates", statuses)
    return [task_id for ids in created for task_id in ids]


def long_files(count: int, priority: str) -> Attack:
    async def attack(scene: Scene) -> None:
        media = long_silence()
        await create_many(scene, count, media, priority=priority)
        await asyncio.sleep(5.0)  # until they are being split
        await scene.hold()

    return attack


async def dripping_urls(scene: Scene) -> None:
    async with scene.target.async_client(ATTACKER) as client:
        statuses: Counter[str] = Counter()
        for number in range(64):
            options = {"file_url": scene.site.url(f"/drip/{number}.mp3", "127.0.0.3"), "priority": "high"}
            statuses[str((await client.post(CREATE, params=options)).status_code)] += 1
        scene.note_statuses("creates", statuses)
        await asyncio.sleep(3.0)
        await scene.hold()
    scene.notes.append(f"{sum(path.startswith('/drip') for path in scene.site.requests)} of 64 were begun")


async def costly_options(scene: Scene) -> None:
    """Have every chunk decoded ten times, at first by twenty beams."""
    options = {
        "beam_size": "20",
        "best_of": "20",
        "temperature": LADDER,
        "compression_ratio_threshold": "0.01",
        "log_prob_threshold": "0",
        "no_speech_threshold": "1",
        "priority": "high",
    }
    await create_many(scene, scene.size(60, 5), scene.site.clip, **options)
    await scene.hold()


async def thousand_tasks(scene: Scene) -> None:
    await create_many(scene, scene.size(1000, 20), scene.site.clip, priority="high")
    await scene.hold()


async def silent_model(scene: Scene) -> None:
    """Request summaries by a model that never responds: as a stage of tasks, and in the attacker's requests."""
    ids = await create_many(scene, scene.size(60, 5), scene.site.clip, summarize="true", summary_model="silent")
    async with scene.target.async_client(ATTACKER, 120.0) as client:
        await client.get("/api/whisper/tasks/result", params={"task_id": ids[0], "wait_s": 30})
        asks = [
            asyncio.create_task(
                client.post("/api/chatgpt/summary", json={"task_id": ids[0], "chatgpt_model": "silent"})
            )
            for _ in range(scene.size(500, 10))
        ]
        await asyncio.sleep(3.0)
        await scene.hold()
        for ask in asks:
            ask.cancel()
        await asyncio.gather(*asks, return_exceptions=True)


async def dripping_receivers(scene: Scene) -> None:
    """Have callbacks sent to receivers that take as long as they may, each a host of its own."""
    for host in range(RECEIVERS):
        url = scene.site.url("/mute", f"127.0.1.{host + 1}")
        await create_many(scene, scene.size(15, 1), scene.site.clip, callback_url=url)
    await asyncio.sleep(10.0)
    await scene.hold()


async def openai_calls(scene: Scene) -> None:
    """Synchronous calls, each of which holds a request until its text is there."""
    async with scene.target.async_client(ATTACKER, 300.0) as client:
        calls = [
            asyncio.create_task(
                client.post("/v1/audio/transcriptions", files={"file": ("a.wav", scene.site.clip)}, data={"model": ""})
            )
            for _ in range(scene.size(300, 10))
        ]
        await asyncio.sleep(2.0)
        await scene.hold()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def nothing(scene: Scene) -> None:
    await scene.hold()


def _of_long_files(name: str, count: int, priority: str) -> Case:
    """Return a case with files whose prepared audio has 1.2 GB each, for which the disk is meant."""
    title = f"{count} FLACs of 9.9 h, `{priority}`"
    return Case(
        name,
        title,
        long_files(count, priority),
        clips=3,
        clip_limit_s=45.0,
        spoils=True,
        max_growth_mib=1024.0,
        max_disk_mib=1200.0 * count,
    )


CASES = (
    Case("idle", "nothing (idle)", nothing, clips=5, max_growth_mib=10_000.0),
    _of_long_files("long-files", 3, "normal"),
    _of_long_files("long-files-high", 10, "high"),
    Case("dripping-urls", "64 URLs on a host that drips, `high`", dripping_urls, way="url", spoils=True),
    Case("costly-options", "60 clips with the dearest options, `high`", costly_options, spoils=True),
    Case("thousand-tasks", "1,000 clips queued, `high`", thousand_tasks, spoils=True),
    Case("silent-model", "500 summaries by a model that is silent", silent_model, way="summary", spoils=True),
    Case(
        "dripping-receivers",
        "150 callbacks to silent receivers on 10 hosts",
        dripping_receivers,
        way="callback",
        spoils=True,
    ),
    Case("openai-calls", "300 synchronous calls at once", openai_calls, way="openai", spoils=True),
)
