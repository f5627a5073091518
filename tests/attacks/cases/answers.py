"""Answers that are large, or that nobody reads."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter

from tests.attacks.case import Case, Scene
from tests.attacks.cases.sharing import create_many
from tests.attacks.service import ATTACKER
from tests.attacks.wire import connect, cut, exchange, head, json_request, many, pour, status_of
from tests.support.recordings import flac_of_silence

EXTRACT = "/api/whisper/extract_audio"
QUERY = "/api/whisper/tasks/query"
RESULT_BYTES = 2_000_000
LARGE_RESULTS = 150
SMALL_BUFFER = 4096


async def unread_answers(scene: Scene) -> None:
    """Request a WAV of 1.14 GB twice and do not read it."""
    seconds = scene.size(5940, 120)
    media = flac_of_silence(seconds * 48_000 // 65_535, 48_000)
    connections = []
    for _ in range(2):
        connection = await connect(scene.target, SMALL_BUFFER)
        await pour(connection[1], _extraction(media))
        connections.append(connection)
    scene.begin()
    statuses = Counter(await asyncio.gather(*(status_of(reader, 30.0) for reader, _ in connections)))
    scene.note_statuses("begun", statuses)
    await asyncio.sleep(5.0)
    await scene.hold()
    for _, writer in connections:
        writer.transport.abort()


def _extraction(media: bytes) -> list[bytes]:
    def field(name: str, value: str) -> bytes:
        return f'--e\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()

    fields = field("sample_rate", "48000") + field("bit_depth", "4") + field("output_format", "wav")
    file = b'--e\r\nContent-Disposition: form-data; name="file"; filename="a.flac"\r\n\r\n' + media
    body = fields + file + b"\r\n--e--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=e", "Content-Length": str(len(body))}
    return [head("POST", EXTRACT, headers), *cut(body)]


async def large_results(scene: Scene, count: int) -> list[int]:
    """Completed tasks whose transcripts have 2 MB each."""
    ids = await create_many(scene, count, scene.site.clip)
    async with scene.target.async_client(ATTACKER, 120.0) as client:
        for task_id in ids:
            while (
                await client.get("/api/whisper/tasks/result", params={"task_id": task_id, "wait_s": 30})
            ).status_code == 202:
                pass
    with scene.target.rows() as rows:
        for task_id in ids:
            _inflate(rows, task_id)
    return ids


def _inflate(rows: sqlite3.Connection, task_id: int) -> None:
    """Repeat a transcript's segments, one after another in time, until they have 2 MB."""
    [text] = rows.execute("SELECT transcript FROM transcripts WHERE task_id = ?", (task_id,)).fetchone()
    transcript = json.loads(text)
    [first, *_] = transcript["segments"]
    copies = RESULT_BYTES // len(json.dumps(first))
    length_s = first["end"] - first["start"]
    transcript["segments"] = [
        first | {"id": number + 1, "start": number * length_s, "end": (number + 1) * length_s - 0.01, "words": None}
        for number in range(copies)
    ]
    rows.execute("UPDATE transcripts SET transcript = ? WHERE task_id = ?", (json.dumps(transcript), task_id))


async def large_page(scene: Scene) -> None:
    count = scene.size(LARGE_RESULTS, 4)
    await large_results(scene, count)
    scene.begin()
    request = json_request(QUERY, {"priority": None, "limit": 500, "include_result": True})
    statuses = await many(2, lambda _: exchange(scene.target, request, 120.0), at_once=2)
    scene.note_statuses("answers", statuses)
    await scene.hold()


async def unread_results(scene: Scene) -> None:
    """Request results of 2 MB 200 times and do not read them."""
    [task_id] = await large_results(scene, 1)
    connections = []
    scene.begin()
    for _ in range(scene.size(200, 5)):
        connection = await connect(scene.target, SMALL_BUFFER)
        connection[1].write(head("GET", f"/api/whisper/tasks/result?task_id={task_id}"))
        connections.append(connection)
    await scene.hold()
    for _, writer in connections:
        writer.transport.abort()


async def unread_events(scene: Scene) -> None:
    """Event streams of a task with a result of 2 MB, not read."""
    [task_id] = await large_results(scene, 1)
    connections = []
    scene.begin()
    for _ in range(scene.size(200, 5)):
        connection = await connect(scene.target, SMALL_BUFFER)
        connection[1].write(head("GET", f"/api/whisper/tasks/events?task_id={task_id}"))
        connections.append(connection)
    await scene.hold()
    for _, writer in connections:
        writer.transport.abort()


async def subtitles(scene: Scene) -> None:
    """Request subtitles of a transcript of 2 MB, in every format, 40 times at once."""
    [task_id] = await large_results(scene, 1)
    formats = ("ass", "srt", "vtt", "json", "tsv", "lrc")
    scene.begin()

    async def one(number: int) -> str:
        path = f"/api/whisper/generate_subtitles?task_id={task_id}&output_format={formats[number % len(formats)]}"
        return await exchange(scene.target, [head("GET", path, {"Connection": "close"})], 120.0)

    scene.note_statuses("answers", await many(scene.size(40, 6), one, at_once=40))
    await scene.hold()


CASES = (
    Case("unread-audio", "2 × extract_audio of 1.14 GB, not read", unread_answers, spoils=True, seconds=20.0),
    Case(
        "large-page",
        "2 pages of 150 results of 2 MB",
        large_page,
        spoils=True,
        max_growth_mib=400.0,
        max_disk_mib=1024.0,
    ),
    Case("unread-results", "200 results of 2 MB, not read", unread_results, spoils=True),
    Case("unread-events", "200 event streams of 2 MB, not read", unread_events, spoils=True),
    Case("subtitles", "40 subtitle files of 2 MB at once", subtitles, spoils=True),
)
