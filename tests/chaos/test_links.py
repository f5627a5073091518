"""Kills of the process that fetches a recording: the download begins anew, and nothing of the first is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.chaos.service import PATIENCE_S, ChaosService
from tests.support import speech
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(120, func_only=True)


@dataclass
class Host:
    """Serves one recording: its first half to the first who asks, and all of it to the others."""

    recording: bytes
    url: str = ""
    requests: int = 0
    stalled: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        first = self.requests == 1
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(self.recording)))
        handler.end_headers()
        handler.wfile.write(self.recording[: len(self.recording) // 2] if first else self.recording)
        if first:
            self.stalled.set()
            handler.connection.settimeout(PATIENCE_S)
            handler.connection.recv(1)  # nothing more is sent by the other side: this returns when it goes away
            self.left.set()


@contextmanager
def hosting(recording: bytes) -> Iterator[Host]:
    host = Host(recording)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.answer(self)

        def log_message(self, *_: object) -> None:
            """Log nothing: the tests read the requests that arrived."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        host.url = f"http://127.0.0.1:{server.server_address[1]}/fox.wav"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield host
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("deployment", ["Crawler", "Dispatcher"])
def test_a_kill_in_mid_download(service: ChaosService, deployment: str) -> None:
    fox = next(sample for sample in speech.of_language("en") if sample.name == "quick_brown_fox")
    with hosting(fox.path.read_bytes()) as host:
        answer = service.client.post("/api/whisper/tasks/create", params={"file_url": host.url, "language": "en"})
        task_id = answer.json()["data"]["id"]
        assert host.stalled.wait(PATIENCE_S)
        eventually(lambda: any(path.suffix == ".partial" for path in service.media_files()), "the download is stored")
        service.kill(deployment)
        record = eventually(lambda: _finished(service, task_id), "the task has ended")
        assert record["status"] == "completed", record["error"]
        assert "fox" in record["result"]["text"].lower()
        assert (record["attempts"], host.requests) == (2, 2)
        assert host.left.wait(PATIENCE_S), "the first download is still open"
        eventually(lambda: not service.media_files(), "the media store is empty")


def _finished(service: ChaosService, task_id: int) -> dict[str, object] | None:
    record = service.tasks(include_result=True)[task_id]
    return record if record["finished_at"] else None
