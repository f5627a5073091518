"""The service as a client sees it: HTTP and nothing else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

Record = dict[str, Any]

PARALLEL_UPLOADS = 8


class ServiceClient:
    """A running service at ``url``. Every call raises ``httpx.HTTPStatusError`` on an error status."""

    def __init__(self, url: str) -> None:
        self.url = httpx.URL(url)
        self._created: list[int] = []
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=32)
        self._http = httpx.Client(base_url=url, timeout=90.0, limits=limits, trust_env=False)

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until a replica has loaded its model and decoded with it."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.url} was not ready within {timeout_s:.0f} s.")
            time.sleep(0.1)

    def is_ready(self) -> bool:
        try:
            return self._http.get("/api/health/ready", timeout=5.0).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def create(self, path: Path, **options: str) -> int:
        """Upload a recording and return the id of its task."""
        with path.open("rb") as file:
            answer = self._http.post(
                "/api/whisper/tasks/create", params=options, files={"file_upload": (path.name, file)}
            )
        task_id: int = _data(answer)["id"]
        self._created.append(task_id)
        return task_id

    def record(self, task_id: int, wait_s: float = 0.0) -> Record:
        """Return the task's record, after its end or ``wait_s`` seconds."""
        return _data(self._http.get("/api/whisper/tasks/result", params={"task_id": task_id, "wait_s": wait_s}))

    def completed(self, task_id: int) -> Record:
        """Wait for the task's end. A task that failed gives an error status."""
        while (record := self.record(task_id, wait_s=60.0))["status"] != "completed":
            pass
        return record

    def transcribe(self, path: Path, **options: str) -> Record:
        """Upload a recording and wait for its transcript."""
        return self.completed(self.create(path, **options))

    def openai_text(self, path: Path, **fields: str) -> str:
        """Return the text of a recording by ``/v1/audio/transcriptions``."""
        with path.open("rb") as file:
            answer = self._http.post("/v1/audio/transcriptions", data=fields, files={"file": (path.name, file)})
        text: str = answer.raise_for_status().json()["text"]
        return text

    def transcribe_all(self, jobs: Sequence[tuple[Path, dict[str, str]]]) -> list[Record]:
        """Upload everything at once and wait until all is done; return records in the order of the jobs."""
        with ThreadPoolExecutor(PARALLEL_UPLOADS) as pool:
            tasks = list(pool.map(lambda job: self.create(job[0], **job[1]), jobs))
        return [self.completed(task) for task in tasks]

    def clean_up(self) -> None:
        """Delete every task made here; running ones are cancelled. To be called where no time is taken."""
        while self._created:
            self._http.delete("/api/whisper/tasks/delete", params={"task_id": self._created.pop()}).raise_for_status()


def _data(answer: httpx.Response) -> Record:
    if answer.is_error:
        raise httpx.HTTPStatusError(f"{answer.status_code}: {answer.text}", request=answer.request, response=answer)
    data: Record = answer.json()["data"]
    return data
