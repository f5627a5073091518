"""Clients of the service and of the stand-ins that the tests of this folder share."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

FINISHED_WITHIN_S = 120.0
UPLOAD_IDLE_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Service:
    """A client of the running service."""

    client: httpx.Client
    data_dir: Path

    def create(self, media: bytes, name: str = "speech.wav", **fields: str) -> dict[str, Any]:
        """Upload a recording and return its record."""
        answer = self.client.post("/api/whisper/tasks/create", files={"file_upload": (name, media)}, data=fields)
        assert answer.status_code == 200, answer.text
        record: dict[str, Any] = answer.json()["data"]
        return record

    def end_of(self, task_id: int) -> httpx.Response:
        """Wait until the task has finished, and return its response."""
        deadline = time.monotonic() + FINISHED_WITHIN_S
        while time.monotonic() < deadline:
            answer = self.client.get("/api/whisper/tasks/result", params={"task_id": task_id, "wait_s": 20})
            if answer.status_code != 202:
                return answer
        raise AssertionError(f"task {task_id} did not finish: {answer.text}")

    def transcribe(self, media: bytes, name: str = "speech.wav", **fields: str) -> dict[str, Any]:
        """Upload a recording, and return its record once it is completed."""
        answer = self.end_of(self.create(media, name, **fields)["id"])
        assert answer.status_code == 200, answer.text
        record: dict[str, Any] = answer.json()["data"]
        return record

    def media_files(self) -> list[Path]:
        """Return the files in the media store."""
        return [path for path in (self.data_dir / "media").rglob("*") if path.is_file()]


@dataclass(frozen=True)
class Sites:
    """TikTok and a server of plain files, in a process of their own; see ``tests.standins.site``."""

    url: str
    ca_file: Path
