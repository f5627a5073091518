"""One service in processes of its own, to be killed piece by piece, and a client that puts up with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from tests.standins.llm import LlmServer
from tests.support.mariadb import MariaDbServer
from tests.support.processes import ROOT, descendants, free_port, kill, on_port, surroundings
from tests.support.thoroughness import thorough
from tests.support.waiting import eventually

Record = dict[str, Any]

READY_WITHIN_S = 150.0
PATIENCE_S = 90.0
"""How long anything may take to come back: a bound for a busy machine, not what is expected."""
POLL_S = 0.2
PAGE = 500
DATABASE_DOWN_S = 20.0 if thorough() else 8.0
"""How long a killed database stays away: longer than the leases last."""
ANSWERED_WITHIN_S = 20.0
EVERY_TASK = {"status": None, "priority": None, "engine_name": None, "has_result": None, "has_error": None}

CONTROLLER, PROXY, WORKER_NODE, DATABASE = "ServeController", "ProxyActor", "raylet", "MariaDB"
"""What can be killed beside the deployments."""


@dataclass
class Receiver:
    """A receiver of callbacks; ``received`` holds the ``webhook-id`` and the body of each that arrived."""

    url: str
    received: list[tuple[str, Record]] = field(default_factory=list)

    def of(self, task_id: int) -> list[tuple[str, Record]]:
        return [(message_id, body) for message_id, body in list(self.received) if body["id"] == task_id]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver of callbacks on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            taken.received.append((self.headers["webhook-id"], body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing: the tests read the requests that arrived."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        taken = Receiver(f"http://127.0.0.1:{server.server_address[1]}/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield taken
        finally:
            server.shutdown()
            thread.join()


@dataclass
class ChaosService:
    """The running service: its client, its data and its processes.

    Attributes:
        roots: the processes below which all of it runs, ``serve run`` first.
        told_without_database: requests that were answered with the reason while the database was away.
        restart: starts ``serve run`` with another Serve config, which is a rolling update, and returns its process.
    """

    client: httpx.Client
    data_dir: Path
    roots: list[subprocess.Popen[Any]]
    database: MariaDbServer | None = None
    restart: Callable[[Path | None], subprocess.Popen[Any]] | None = None
    told_without_database: int = 0

    def create(self, media: bytes, name: str = "speech.ogg", **options: str) -> int:
        """Queue a recording, however often that has to be tried, and return its task's id."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        answer = self._insist(
            lambda: self.client.post(
                "/api/whisper/tasks/create", params=options, files={"file_upload": (name, media)}, headers=headers
            )
        )
        task_id: int = answer["id"]
        return task_id

    def tasks(self, *, include_result: bool = False) -> dict[int, Record]:
        """Return every task record, by id."""
        found: dict[int, Record] = {}
        more = True
        while more:
            condition = {**EVERY_TASK, "include_result": include_result, "limit": PAGE, "offset": len(found)}
            page = self._page(condition)
            found |= {record["id"]: record for record in page["tasks"]}
            more = page["has_more"]
        return found

    def _page(self, condition: Record) -> Record:
        page: Record = self._insist(lambda: self.client.post("/api/whisper/tasks/query", json=condition))
        return page

    def media_files(self) -> list[Path]:
        """Return the files of tasks in the media store; a folder with a leading dot belongs to none."""
        return [path for path in (self.data_dir / "media").glob("[!.]*/**/*") if path.is_file()]

    def processes(self, title: str) -> list[psutil.Process]:
        """Return the living processes of this service whose title begins so."""
        everything = [process for root in self.roots for process in descendants(root.pid)]
        return [process for process in everything if _title(process).startswith(title)]

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """Return the living processes of a deployment of this service."""
        return self.processes(f"ray::ServeReplica:murmuration:{deployment}")

    def worker_raylets(self) -> list[psutil.Process]:
        """Return the raylets of the nodes that are not the head."""
        everything = [process for root in self.roots for process in descendants(root.pid)]
        return [process for process in everything if _is_worker_raylet(_command(process))]

    def cpu_s(self, deployment: str) -> float:
        """CPU time that the deployment's living processes have used."""
        times = [process.cpu_times() for process in self.replicas(deployment)]
        return sum(spent.user + spent.system for spent in times)

    def victims(self, what: str) -> list[psutil.Process]:
        """Return the processes that a kill of this kind would end."""
        if what in (CONTROLLER, PROXY):
            return self.processes(f"ray::{what}")
        return self.worker_raylets() if what == WORKER_NODE else self.replicas(what)

    def kill(self, what: str) -> None:
        """SIGKILL, to every process of a deployment or of another kind; the database comes back after a while."""
        if what == DATABASE:
            self._kill_database()
            return
        victims = eventually(lambda: self.victims(what), f"a process of {what}")
        for victim in victims:
            victim.kill()
        _, alive = psutil.wait_procs(victims, timeout=10.0)
        assert not alive

    def _kill_database(self) -> None:
        assert self.database is not None
        self.database.kill()
        killed_at = time.monotonic()
        while time.monotonic() < killed_at + DATABASE_DOWN_S:
            self._expect_the_truth_without_a_database()
            time.sleep(1.0)
        self.database.start()

    def answer_about_a_task(self) -> httpx.Response | None:
        """Return the response about task 1; ``None`` while the HTTP proxy or an Ingress is started or replaced."""
        try:
            return self.client.get("/api/whisper/tasks/result", params={"task_id": 1}, timeout=ANSWERED_WITHIN_S)
        except httpx.TransportError:
            return None

    def _expect_the_truth_without_a_database(self) -> None:
        answer = self.answer_about_a_task()
        if answer is None:
            return
        assert answer.is_server_error, f"without a database: {answer.text}"
        if "database_unavailable" in answer.text:  # else it is Serve's own word: an Ingress is being replaced
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert int(answer.headers["Retry-After"]) > 0
            self.told_without_database += 1

    def is_ready(self) -> bool:
        try:
            return self.client.get("/api/health/ready", timeout=5.0).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _insist(self, request: Callable[[], httpx.Response]) -> Any:
        """Send a request as a client whose service may be losing a process: again until it gets a response."""

        def ask() -> httpx.Response | None:
            try:
                answer = request()
            except httpx.TransportError:
                return None
            shut_down = answer.status_code == httpx.codes.NOT_FOUND and "/-/routes" in answer.text  # Serve's own word
            return None if answer.is_server_error or shut_down else answer

        answer = eventually(ask, "an answer")
        assert answer.status_code == httpx.codes.OK, answer.text
        return answer.json()["data"]


def _is_worker_raylet(command: list[str]) -> bool:
    return bool(command) and command[0].endswith("/raylet") and "--head" not in command


def _title(process: psutil.Process) -> str:
    return "".join(_command(process)[:1])


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it ended between being listed and being asked
        return []


@contextmanager
def on_one_node(llm: LlmServer) -> Iterator[ChaosService]:
    """Run the application as ``serve run`` starts it, on SQLite, ready; at the end nothing of it is left."""
    with _home() as home, ExitStack() as stack:
        port = free_port()
        environment = surroundings(home) | _mark() | _short_leases() | _summaries_by(llm)
        log = home / "log.txt"
        process = stack.enter_context(_serve_run(_config(home, port, {}), environment, log, ()))
        client = stack.enter_context(_client(port))
        service = ChaosService(client, home / "data", [process])
        _wait_until_ready(service, log)
        yield service


@contextmanager
def on_two_nodes() -> Iterator[ChaosService]:
    """Run the application on two nodes that share a MariaDB and a folder, ready; at the end nothing of it is left."""
    with _home() as home, ExitStack() as stack:
        database = stack.enter_context(MariaDbServer(home))
        url = {"MURMURATION_DATABASE__URL": database.create_database("murmuration")}
        environment = surroundings(home) | _mark() | _short_leases() | url
        log, port = home / "log.txt", free_port()
        nodes, address = stack.enter_context(_two_nodes(environment, home / "nodes.txt"))
        to_cluster = ("--address", address)

        def run(settings: Path | None) -> subprocess.Popen[Any]:
            config = _config(home, port, TWO_REPLICAS, settings)
            return stack.enter_context(_serve_run(config, environment, log, to_cluster))

        client = stack.enter_context(_client(port))
        service = ChaosService(client, home / "data", [run(None), nodes], database, run)
        _wait_until_ready(service, log)
        yield service


@contextmanager
def without_its_database() -> Iterator[tuple[ChaosService, MariaDbServer]]:
    """Run the application as ``serve run`` starts it, not ready, beside its MariaDB, which is to be started."""
    with _home() as home, ExitStack() as stack:
        database = stack.enter_context(MariaDbServer(home))
        url = {"MURMURATION_DATABASE__URL": database.create_database("murmuration")}
        database.kill()
        port = free_port()
        environment = surroundings(home) | _mark() | _short_leases() | url
        process = stack.enter_context(_serve_run(_config(home, port, {}), environment, home / "log.txt", ()))
        client = stack.enter_context(_client(port))
        yield ChaosService(client, home / "data", [process], database), database


TWO_REPLICAS = {"WhisperReplica": {"num_replicas": 2}}


@contextmanager
def _home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="mc-", dir="/tmp"))  # Ray's sockets need a short path
    (home / "ray").mkdir()
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _client(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0, trust_env=False)


def _mark() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name == "MURMURATION_CI_RUN"}


def _summaries_by(llm: LlmServer) -> dict[str, str]:
    return {
        "MURMURATION_LLM__BASE_URL": llm.base_url,
        "MURMURATION_LLM__RETRY_BASE_S": "1",
        "MURMURATION_LLM__TIMEOUT_S": "15",
        "MURMURATION_LLM__MAX_RETRIES": "0",
    }


def _short_leases() -> dict[str, str]:
    """Short leases, whose end need not be waited for long; short chunks, for one sentence each."""
    return {
        "MURMURATION_NETWORK__ALLOW_PRIVATE_HOSTS": '["127.0.0.1"]',
        "MURMURATION_DISPATCH__LEASE_DURATION_S": "6",
        "MURMURATION_DISPATCH__HEARTBEAT_S": "1",
        "MURMURATION_DISPATCH__POLL_S": "1",
        "MURMURATION_DISPATCH__HOUSEKEEPING_S": "2",
        "MURMURATION_MEDIA__ORPHAN_AGE_S": "30",
        "MURMURATION_CALLBACK__TIMEOUT_S": "3",
        "MURMURATION_CALLBACK__DELAYS_S": "[1, 2, 4, 8]",
        "MURMURATION_ASR__MODEL": "tiny.en",
        "MURMURATION_SPLIT__MAX_CHUNK_S": "5",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "2",
    }


def _config(home: Path, port: int, changes: Mapping[str, Mapping[str, Any]], settings: Path | None = None) -> Path:
    """``serve_config.yaml`` on a port of its own, with changes to some deployments and perhaps a settings file."""
    content = on_port(yaml.safe_load((ROOT / "serve_config.yaml").read_text()), port)
    [application] = content["applications"]
    for deployment in application["deployments"]:
        deployment |= changes.get(deployment["name"], {})
    if changes:
        content["proxy_location"] = "HeadOnly"  # all nodes are on this machine, and share its ports
    if settings is not None:
        application["args"]["config"] = str(settings)
    path = home / f"serve_config-{uuid.uuid4().hex[:6]}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@contextmanager
def _serve_run(
    config: Path, environment: Mapping[str, str], log: Path, options: Sequence[str]
) -> Iterator[subprocess.Popen[Any]]:
    command = [sys.executable, "-m", "ray.serve.scripts", "run", *options, str(config)]
    with _in_group(command, environment, log) as process:
        yield process


@contextmanager
def _two_nodes(environment: Mapping[str, str], log: Path) -> Iterator[tuple[subprocess.Popen[Any], str]]:
    command = [sys.executable, "-m", "tests.chaos.two_nodes"]
    with _in_group(command, environment, log) as process:
        address = eventually(lambda: _first_line(log, process), "the cluster is up")
        yield process, address


ADDRESS = re.compile(r"[0-9.]+:[0-9]+")


def _first_line(log: Path, process: subprocess.Popen[Any]) -> str | None:
    assert process.poll() is None, log.read_text()[-4000:]
    return next((line for line in log.read_text().splitlines() if ADDRESS.fullmatch(line)), None)


@contextmanager
def _in_group(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[Any]]:
    """Run a command whose output goes to a file; at the end it is killed, and nothing of it is left."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=dict(environment), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            family = list(descendants(process.pid))
            kill(process)
            assert not [member for member in family if member.is_running()]


def interrupt(process: subprocess.Popen[Any]) -> None:
    """Interrupt ``serve run``, and wait for its end."""
    process.send_signal(signal.SIGINT)
    process.wait(PATIENCE_S)


def _wait_until_ready(service: ChaosService, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not service.is_ready():
        assert service.roots[0].poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(POLL_S)
