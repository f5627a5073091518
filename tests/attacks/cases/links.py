"""Pages and streams behind links: without an end, or far larger than they look."""

from __future__ import annotations

import asyncio

from tests.attacks.case import Attack, Case, Scene
from tests.attacks.service import ATTACKER

CRAWL = "/api/crawl/video_task"


def crawl(path: str, count: int) -> Attack:
    async def attack(scene: Scene) -> None:
        async with scene.target.async_client(ATTACKER) as client:
            ids = []
            for number in range(count):
                answer = await client.post(CRAWL, data={"url": scene.site.url(f"{path}{number}", "127.0.0.3")})
                ids.append(answer.raise_for_status().json()["data"]["id"])
            scene.begin()
            await _until_fetched(scene, ids)
            await scene.hold()
            for task_id in ids:
                answer = await client.get("/api/whisper/tasks/result", params={"task_id": task_id})
                detail = answer.json().get("detail") or answer.json()["data"]
                scene.notes.append(f"{answer.status_code} {detail.get('error') or detail['stage']}")
                await client.post("/api/whisper/tasks/cancel", params={"task_id": task_id})

    return attack


async def _until_fetched(scene: Scene, ids: list[int]) -> None:
    async with scene.target.async_client(ATTACKER) as client:
        for _ in range(80):
            answers = [await client.get("/api/whisper/tasks/result", params={"task_id": task_id}) for task_id in ids]
            if scene.is_over or all(answer.status_code != 202 for answer in answers):
                return
            await asyncio.sleep(0.5)


CASES = (
    Case(
        "endless-pages",
        "2 pages without end",
        crawl("/endless/", 2),
        spoils=True,
        max_growth_mib=700.0,
        seconds=15.0,
    ),
    Case("unfolding-stream", "HLS of 4 × 1 GiB, packed to 4 MiB", crawl("/page/", 1), spoils=True, seconds=30.0),
)
