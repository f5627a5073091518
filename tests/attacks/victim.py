"""The client whose clip the attack delays."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Self

import httpx

from tests.attacks.service import VICTIM, key_of

CREATE = "/api/whisper/tasks/create"


@dataclass(frozen=True)
class Clips:
    """The recordings that the victim sends while the attack lasts, one after another.

    Attributes:
        media: the recording.
        count: how many are sent at least.
        limit_s: a clip that takes longer counts as lost.
        way: ``upload``; ``url``: fetched from ``source_url``; ``summary``: uploaded, with a summary; ``callback``:
            uploaded, and over when its callback arrives; ``openai``: by OpenAI's route.
    """

    media: bytes
    count: int
    limit_s: float
    way: str = "upload"
    source_url: str = ""


class ClipFailed(Exception):
    """The victim's clip was not transcribed."""


class Victim:
    """The client that only wants its clip transcribed."""

    def __init__(self, port: int, clips: Clips) -> None:
        self._clips = clips
        self._http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {key_of(VICTIM)}"},
            timeout=clips.limit_s,
            trust_env=False,
        )
        self._called_back: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._receiver: asyncio.Server | None = None
        self._sent = 0

    async def __aenter__(self) -> Self:
        if self._clips.way == "callback":
            self._receiver = await asyncio.start_server(self._take_callback, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        if self._receiver is not None:
            self._receiver.close()

    async def transcribe(self) -> None:
        if self._clips.way == "openai":
            files = {"file": ("clip.wav", self._clips.media)}
            self._expect(await self._http.post("/v1/audio/transcriptions", files=files, data={"model": ""}))
            return
        self._sent += 1
        record = self._expect(await self._create())["data"]
        while (answer := await self._result(record["id"])).status_code == httpx.codes.ACCEPTED:
            await asyncio.sleep(0.1)
        ended = self._expect(answer)["data"]
        if self._clips.way == "summary" and ended["summary_status"] != "completed":
            raise ClipFailed(f"summary {ended['summary_status']}: {ended['summary_error']}")
        if self._clips.way == "callback":
            await self._called_back[f"/{self._sent}"].wait()

    async def _create(self) -> httpx.Response:
        options = {"priority": "high"}
        if self._clips.way == "url":
            return await self._http.post(CREATE, params=options | {"file_url": self._clips.source_url})
        if self._clips.way == "summary":
            options |= {"summarize": "true"}
        if self._receiver is not None:
            port = self._receiver.sockets[0].getsockname()[1]
            options |= {"callback_url": f"http://127.0.0.1:{port}/{self._sent}"}
        return await self._http.post(CREATE, params=options, files={"file_upload": ("clip.wav", self._clips.media)})

    async def _result(self, task_id: int) -> httpx.Response:
        return await self._http.get("/api/whisper/tasks/result", params={"task_id": task_id, "wait_s": 30})

    @staticmethod
    def _expect(answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code != httpx.codes.OK:
            raise ClipFailed(f"{answer.status_code}: {answer.text[:80]}")
        body: dict[str, Any] = answer.json()
        return body

    async def _take_callback(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self._called_back[head.split(b" ")[1].decode()].set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
