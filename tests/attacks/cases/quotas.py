"""Ways round a client's quotas: many requests in the same moment, and work that begins elsewhere."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import httpx

from tests.attacks.case import Case, Scene
from tests.attacks.service import ATTACKER, LIMITED, QUEUED_LIMIT
from tests.support.recordings import flac_of_silence

CREATE = "/api/whisper/tasks/create"
EXTRACT = "/api/whisper/extract_audio"
QUERY = "/api/whisper/tasks/query"
UPLOADS = "/api/whisper/uploads"
TUS = {"Tus-Resumable": "1.0.0"}
ONE_AT_A_TIME = {"MURMURATION_DISPATCH__MAX_ACTIVE_TASKS": "1", "MURMURATION_DISPATCH__MAX_CONCURRENT_CRAWLS": "1"}
SMALL_QUEUE = ONE_AT_A_TIME | {"MURMURATION_DISPATCH__MAX_QUEUED_TASKS": "30"}
AT_ONCE = 50
EIGHT_HOURS = flac_of_silence(3600, 8000)


async def _at_once(request: Callable[[], Awaitable[httpx.Response]], count: int) -> Counter[str]:
    answers = await asyncio.gather(*(request() for _ in range(count)), return_exceptions=True)
    return Counter(
        type(answer).__name__ if isinstance(answer, BaseException) else str(answer.status_code) for answer in answers
    )


async def _waiting(client: httpx.AsyncClient) -> int:
    condition = {"status": "queued", "priority": None, "engine_name": None, "has_result": None, "has_error": None}
    answer = await client.post(QUERY, json=condition)
    return int(answer.raise_for_status().json()["data"]["total_count"])


def _judge(scene: Scene, waiting: int) -> None:
    scene.notes.append(f"{waiting} wait, {QUEUED_LIMIT} may")
    if waiting > QUEUED_LIMIT:
        scene.flaws.append(f"{waiting} tasks wait where {QUEUED_LIMIT} may")


async def parallel_creates(scene: Scene) -> None:
    async with scene.target.async_client(LIMITED) as client:
        await _occupy(scene, client)
        options = {"file_url": scene.site.url("/drip", "127.0.0.3")}
        statuses = await _at_once(lambda: client.post(CREATE, params=options), AT_ONCE)
        scene.note_statuses("creates", statuses)
        _judge(scene, await _waiting(client))
        await scene.hold()


async def parallel_uploads(scene: Scene) -> None:
    """Resumable uploads begun at once: each is to become a task that waits."""
    async with scene.target.async_client(LIMITED) as client:
        statuses = await _at_once(lambda: client.post(UPLOADS, headers=TUS | {"Upload-Length": "1000"}), AT_ONCE)
        scene.note_statuses("uploads", statuses)
        if statuses["201"] > QUEUED_LIMIT:
            scene.flaws.append(f"{statuses['201']} uploads were begun where {QUEUED_LIMIT} may be")
        await scene.hold()


async def retries(scene: Scene) -> None:
    """Cancel tasks to make room, and retry all of them at once."""
    async with scene.target.async_client(LIMITED) as client:
        await _occupy(scene, client)
        ids: list[int] = []
        options = {"file_url": scene.site.url("/drip", "127.0.0.3")}
        for _ in range(4 * QUEUED_LIMIT):
            answer = await client.post(CREATE, params=options)
            if answer.status_code != 200:
                continue
            ids.append(answer.json()["data"]["id"])
            await client.post("/api/whisper/tasks/cancel", params={"task_id": ids[-1]})
        retried = await asyncio.gather(
            *(client.post("/api/whisper/tasks/retry", params={"task_id": task_id}) for task_id in ids)
        )
        scene.note_statuses("retries", Counter(str(answer.status_code) for answer in retried))
        _judge(scene, await _waiting(client))
        await scene.hold()


async def _occupy(scene: Scene, client: httpx.AsyncClient) -> None:
    """Occupy the only slot with a task that does not end."""
    await client.post(CREATE, params={"file_url": scene.site.url("/drip", "127.0.0.2")})
    await asyncio.sleep(4.0)


async def full_queue(scene: Scene) -> None:
    """Queue as much as the queue takes, as a client without limits."""
    async with scene.target.async_client(ATTACKER) as client:
        options = {"file_url": scene.site.url("/drip", "127.0.0.3")}
        statuses: Counter[str] = Counter()
        for _ in range(2 * int(SMALL_QUEUE["MURMURATION_DISPATCH__MAX_QUEUED_TASKS"])):
            statuses[str((await client.post(CREATE, params=options)).status_code)] += 1
        scene.note_statuses("creates", statuses)
        await scene.hold()


async def free_audio(scene: Scene) -> None:
    """Eight hours of audio a request, where ten minutes a day are allowed: extracted, and split all at once."""
    async with scene.target.async_client(LIMITED, 120.0) as client:
        files = {"file": ("a.flac", EIGHT_HOURS)}
        fields = {"sample_rate": "8000", "bit_depth": "1", "output_format": "mp3"}
        statuses: Counter[str] = Counter()
        for _ in range(2):
            async with client.stream("POST", EXTRACT, files=files, data=fields) as answer:
                statuses[str(answer.status_code)] += 1
        scene.note_statuses("extracted", statuses)
        if statuses["200"] > 1:
            scene.flaws.append("extract_audio counts against no quota")
        uploads = await _at_once(
            lambda: client.post(CREATE, files={"file_upload": ("a.flac", EIGHT_HOURS)}), QUEUED_LIMIT
        )
        scene.note_statuses("creates of 8 h at once", uploads)
        await scene.hold()


CASES = (
    Case("parallel-creates", "50 creates at once, 5 allowed", parallel_creates, clips=0, settings=ONE_AT_A_TIME),
    Case("parallel-uploads", "50 tus uploads begun at once, 5 allowed", parallel_uploads, clips=0, quick=True),
    Case("retries", "20 cancelled tasks retried, 5 allowed", retries, clips=0, settings=ONE_AT_A_TIME),
    Case("full-queue", "60 tasks where 30 may wait, of all clients", full_queue, settings=SMALL_QUEUE, spoils=True),
    Case("free-audio", "8 h extracted, 10 min allowed", free_audio, clips=0, spoils=True),
)
