"""One service in processes of its own, to be killed piece by piece, and a client that puts up with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.benchmarks.processes import descendants
from tests.benchmarks.startup import ROOT, end, free_port, on_port, surroundings
from tests.standins.llm import LlmServer, running_llm_server

Record = dict[str, Any]

READY_WITHIN_S = 150.0
PATIENCE_S = 90.0
"""How long anything may take to come back: a bound for a busy machine, not what is expected."""
POLL_S = 0.2
EVERY_TASK = {"status": None, "priority": None, "engine_name": None, "has_result": None, "has_error": None}


def eventually(holds: Callable[[], Any], what: str) -> Any:
    """The first value that is true; the test fails if there is none in time."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := holds()):
        assert time.monotonic() < deadline, f"never within {PATIENCE_S:.0f} s: {what}"
        time.sleep(POLL_S)
    return value


@dataclass
class Receiver:
    """Takes callbacks; ``received`` holds the ``webhook-id`` and the body of each that arrived."""

    url: str
    received: list[tuple[str, Record]] = field(default_factory=list)

    def of(self, task_id: int) -> list[tuple[str, Record]]:
        return [(message_id, body) for message_id, body in list(self.received) if body["id"] == task_id]


@dataclass
class Service:
    """The running service: its client, its data and its processes."""

    client: httpx.Client
    data_dir: Path
    process: subprocess.Popen[bytes]

    def create(self, media: bytes, name: str = "speech.ogg", **options: str) -> int:
        """Queues a recording, however often that has to be tried, and returns its task's id."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        answer = self._insist(
            lambda: self.client.post(
                "/api/whisper/tasks/create", params=options, files={"file_upload": (name, media)}, headers=headers
            )
        )
        task_id: int = answer["id"]
        return task_id

    def tasks(self, *, include_result: bool = False) -> dict[int, Record]:
        """Every record there is, by id."""
        condition = {**EVERY_TASK, "include_result": include_result, "limit": 500}
        page = self._insist(lambda: self.client.post("/api/whisper/tasks/query", json=condition))
        return {record["id"]: record for record in page["tasks"]}

    def media_files(self) -> list[Path]:
        """What lies in the media store."""
        return [path for path in (self.data_dir / "media").rglob("*") if path.is_file()]

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """The living processes of a deployment of this service."""
        title = f"ray::ServeReplica:murmuration:{deployment}"
        return [process for process in descendants(self.process.pid) if _title(process).startswith(title)]

    def cpu_s(self, deployment: str) -> float:
        """CPU time that the deployment's living processes have used."""
        times = [process.cpu_times() for process in self.replicas(deployment)]
        return sum(spent.user + spent.system for spent in times)

    def kill(self, deployment: str) -> None:
        """SIGKILL, to every replica of a deployment."""
        victims = eventually(lambda: self.replicas(deployment), f"a process of {deployment}")
        for victim in victims:
            victim.kill()
        _, alive = psutil.wait_procs(victims, timeout=10.0)
        assert not alive

    def _insist(self, request: Callable[[], httpx.Response]) -> Any:
        """What a client does whose service may be losing a process: it asks again."""

        def ask() -> httpx.Response | None:
            try:
                answer = request()
            except httpx.TransportError:
                return None
            return None if answer.is_server_error else answer

        answer = eventually(ask, "an answer")
        assert answer.status_code == httpx.codes.OK, answer.text
        return answer.json()["data"]


def _title(process: psutil.Process) -> str:
    try:
        return "".join(process.cmdline()[:1])
    except psutil.Error:  # it ended between being listed and being asked
        return ""


@pytest.fixture(scope="session")
def llm() -> Iterator[LlmServer]:
    """The language model's server, which is never killed."""
    with running_llm_server() as server:
        yield server


@pytest.fixture(scope="session")
def service(llm: LlmServer) -> Iterator[Service]:
    """The application as ``serve run`` starts it, ready; at the end nothing of it is left."""
    home = Path(tempfile.mkdtemp(prefix="mc-", dir="/tmp"))  # Ray's sockets need a short path
    try:
        port = free_port()
        config = home / "serve_config.yaml"
        config.write_text(yaml.safe_dump(on_port(yaml.safe_load((ROOT / "serve_config.yaml").read_text()), port)))
        with (
            _running(config, _environment(home, llm), home / "log.txt") as process,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0, trust_env=False) as client,
        ):
            _wait_until_ready(client, process, home / "log.txt")
            yield Service(client, home / "data", process)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _environment(home: Path, llm: LlmServer) -> dict[str, str]:
    """Short leases, whose end need not be waited for long; short chunks, for one sentence each."""
    (home / "ray").mkdir()
    mark = {name: value for name, value in os.environ.items() if name == "MURMURATION_CI_RUN"}
    return (
        surroundings(home)
        | mark
        | {
            "MURMURATION_NETWORK__ALLOW_PRIVATE_HOSTS": '["127.0.0.1"]',
            "MURMURATION_DISPATCH__LEASE_DURATION_S": "6",
            "MURMURATION_DISPATCH__HEARTBEAT_S": "1",
            "MURMURATION_DISPATCH__POLL_S": "1",
            "MURMURATION_CALLBACK__TIMEOUT_S": "3",
            "MURMURATION_CALLBACK__DELAYS_S": "[1, 2, 4, 8]",
            "MURMURATION_ASR__MODEL": "tiny.en",
            "MURMURATION_LLM__BASE_URL": llm.base_url,
            "MURMURATION_LLM__RETRY_BASE_S": "1",
            "MURMURATION_LLM__TIMEOUT_S": "15",
            "MURMURATION_LLM__MAX_RETRIES": "0",
            "MURMURATION_SPLIT__MAX_CHUNK_S": "5",
        }
    )


@contextmanager
def _running(config: Path, environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "ray.serve.scripts", "run", str(config)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            family = list(descendants(process.pid))
            end(process)
            assert not [member for member in family if member.is_running()]


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not _is_ready(client):
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(POLL_S)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/api/health/ready", timeout=5.0).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of callbacks on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            taken.received.append((self.headers["webhook-id"], body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing: the tests look at what arrived."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        taken = Receiver(f"http://127.0.0.1:{server.server_address[1]}/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield taken
        finally:
            server.shutdown()
            thread.join()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Shows what the tests of this folder measured; nothing is asserted of it."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if report.when == "call" and name.startswith("recovery_s"):
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {name} {value}")
