"""Many small requests: each is cheap, and together they are to take nobody's place."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx

from tests.attacks.case import Attack, Case, Scene
from tests.attacks.cases.sharing import create, create_many
from tests.attacks.service import ATTACKER
from tests.attacks.wire import exchange, head, many

CREATE = "/api/whisper/tasks/create"
UPLOADS = "/api/whisper/uploads"
TUS = {"Tus-Resumable": "1.0.0"}
AT_ONCE = 64
MANY_ROWS = 50_000


def requests(path: str, method: str = "GET", *, key: bool = True, count: int = 4000) -> Attack:
    """Send the same request again and again, for as long as the victim's clips take."""

    async def attack(scene: Scene) -> None:
        statuses: Counter[str] = Counter()
        request = [head(method, path, {"Connection": "close"}, ATTACKER if key else None)]

        async def one(_: int) -> str:
            return "skipped" if scene.is_over else await exchange(scene.target, request)

        scene.begin()
        while not scene.is_over:
            statuses += await many(scene.size(count, 50), one, AT_ONCE)
            if scene.small:
                break
        scene.note_statuses(f"{method} {path}", statuses)
        await scene.hold()

    return attack


async def long_urls(scene: Scene) -> None:
    """Request addresses of 60 KB, which any log of requests has to keep."""
    statuses: Counter[str] = Counter()
    scene.begin()

    async def one(number: int) -> str:
        path = f"/api/whisper/tasks/result?task_id={number}&x={'a' * 60_000}"
        return await exchange(scene.target, [head("GET", path, {"Connection": "close"})])

    statuses += await many(scene.size(3000, 20), one, AT_ONCE)
    scene.note_statuses("answers", statuses)
    await scene.hold()


async def wrong_keys(scene: Scene) -> None:
    """Send requests with unknown keys, each of 8 KB."""
    statuses: Counter[str] = Counter()
    scene.begin()

    async def one(number: int) -> str:
        key = {"Authorization": f"Bearer mur_{number:08000d}", "Connection": "close"}
        return await exchange(scene.target, [head("GET", "/api/whisper/tasks/result?task_id=1", key, None)])

    while not scene.is_over:
        statuses += await many(scene.size(2000, 50), one, AT_ONCE)
        if scene.small:
            break
    scene.note_statuses("answers", statuses)
    await scene.hold()


async def open_uploads(scene: Scene) -> None:
    """Resumable uploads without a byte."""
    async with scene.target.async_client(ATTACKER) as client:
        scene.begin()
        slots = asyncio.Semaphore(16)

        async def one(_: int) -> str:
            async with slots:
                headers = TUS | {"Upload-Length": "2000000000"}
                return str((await client.post(UPLOADS, headers=headers)).status_code)

        scene.note_statuses("begun", Counter(await asyncio.gather(*map(one, range(scene.size(5000, 50))))))
        await scene.hold()


async def idempotency_keys(scene: Scene) -> None:
    """Send the same idempotency key with a hundred bodies at once, and keys of 8 KB."""
    async with scene.target.async_client(ATTACKER) as client:
        scene.begin()

        async def one(number: int) -> str:
            key = "same" if number % 2 else f"{number:08000d}"
            files = {"file_upload": (f"{number}.wav", scene.site.clip)}
            answer = await client.post(CREATE, files=files, headers={"Idempotency-Key": key})
            return str(answer.status_code)

        scene.note_statuses("creates", Counter(await asyncio.gather(*map(one, range(scene.size(200, 20))))))
        await scene.hold()


async def cancel_and_retry(scene: Scene) -> None:
    """Cancel and retry one task, by 16 at once."""
    async with scene.target.async_client(ATTACKER) as client:
        task_id = await create(client, scene.site.clip)
        scene.begin()
        statuses: Counter[str] = Counter()

        async def storm(verb: str) -> None:
            while not scene.is_over:
                answer = await client.post(f"/api/whisper/tasks/{verb}", params={"task_id": task_id})
                statuses[f"{answer.status_code}"] += 1
                if scene.small and sum(statuses.values()) > 100:
                    return

        await asyncio.gather(*(storm(verb) for verb in ("cancel", "retry") for _ in range(8)))
        scene.note_statuses("answers", statuses)
        await scene.hold()


async def deletions(scene: Scene) -> None:
    """Delete tasks while they run, 16 at once."""
    ids = await create_many(scene, scene.size(300, 20), scene.site.clip)
    async with scene.target.async_client(ATTACKER) as client:
        scene.begin()
        slots = asyncio.Semaphore(16)

        async def one(task_id: int) -> str:
            async with slots:
                answer = await client.delete("/api/whisper/tasks/delete", params={"task_id": task_id})
                return str(answer.status_code)

        scene.note_statuses("answers", Counter(await asyncio.gather(*map(one, ids))))
        await scene.hold()


def many_rows(scene: Scene) -> None:
    """Fill the table with finished tasks of the attacker, copies of one."""
    with scene.target.rows() as rows:
        columns = [row[1] for row in rows.execute("PRAGMA table_info(tasks)") if row[1] != "id"]
        named = ", ".join(columns)
        [pattern] = rows.execute("SELECT MAX(id) FROM tasks WHERE status = 'completed'").fetchone()
        rows.execute(
            f"WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ?) "
            f"INSERT INTO tasks ({named}) SELECT {named} FROM tasks, counted WHERE tasks.id = ?",
            (MANY_ROWS, pattern),
        )


async def deep_queries(scene: Scene) -> None:
    """Query pages deep in a table of 50,000 tasks, 16 at once."""
    async with scene.target.async_client(ATTACKER, 120.0) as client:
        task_id = await create(client, scene.site.clip)
        while (await _result(client, task_id)).status_code == 202:
            pass
        many_rows(scene)
        scene.begin()
        statuses: Counter[str] = Counter()

        async def storm() -> None:
            while not scene.is_over:
                condition = {"priority": None, "offset": MANY_ROWS - 100, "limit": 500, "has_result": None}
                statuses[str((await client.post("/api/whisper/tasks/query", json=condition)).status_code)] += 1

        await asyncio.gather(*(storm() for _ in range(16)))
        scene.note_statuses("pages", statuses)


async def _result(client: httpx.AsyncClient, task_id: int) -> httpx.Response:
    return await client.get("/api/whisper/tasks/result", params={"task_id": task_id, "wait_s": 30})


async def five_hundred_tasks(scene: Scene) -> None:
    """Run a working day in short; memory beyond that after 100 tasks counts as leaked."""
    await _done(scene, scene.size(100, 5))
    scene.begin()
    await _done(scene, scene.size(500, 10))
    await scene.hold()


async def _done(scene: Scene, count: int) -> None:
    ids = await create_many(scene, count, scene.site.clip)
    async with scene.target.async_client(ATTACKER, 120.0) as client:
        for task_id in ids:
            while (await _result(client, task_id)).status_code == 202:
                pass


CASES = (
    Case("metrics-storm", "64 at once: GET /metrics", requests("/metrics")),
    Case("openapi-storm", "64 at once: GET /openapi.json, no key", requests("/openapi.json", key=False)),
    Case(
        "docs-storm", "64 at once: GET /docs/assets, no key", requests("/docs/assets/swagger-ui-bundle.js", key=False)
    ),
    Case("options-storm", "64 at once: OPTIONS", requests(CREATE, "OPTIONS", key=False)),
    Case("head-storm", "64 at once: HEAD of a result", requests("/api/whisper/tasks/result?task_id=1", "HEAD")),
    Case("unknown-storm", "64 at once: unknown routes, no key", requests("/nothing", key=False)),
    Case("wrong-keys", "64 at once: wrong keys of 8 KB", wrong_keys),
    Case("long-urls", "3,000 addresses of 60 KB", long_urls, max_disk_mib=64.0),
    Case("open-uploads", "5,000 tus uploads without a byte", open_uploads, spoils=True),
    Case("idempotency-keys", "200 creates: one key, and keys of 8 KB", idempotency_keys, spoils=True),
    Case("cancel-and-retry", "one task cancelled and retried by 16", cancel_and_retry, spoils=True),
    Case("deletions", "300 tasks deleted while they run", deletions, spoils=True),
    Case("deep-queries", "16 at once: pages deep in 50,000 tasks", deep_queries, spoils=True),
    Case("500-tasks", "500 tasks", five_hundred_tasks, clips=0, max_process_growth_mib=20.0, spoils=True),
)
