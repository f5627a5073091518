"""One running service for all tests of this folder: real Ray, real model, real sockets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.standins.llm import LlmServer, running_llm_server

ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 120.0
FINISHED_WITHIN_S = 120.0
UPLOAD_IDLE_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Service:
    """A client of the running service."""

    client: httpx.Client
    data_dir: Path

    def create(self, media: bytes, name: str = "speech.wav", **fields: str) -> dict[str, Any]:
        """Uploads a recording and returns its record."""
        answer = self.client.post("/api/whisper/tasks/create", files={"file_upload": (name, media)}, data=fields)
        assert answer.status_code == 200, answer.text
        record: dict[str, Any] = answer.json()["data"]
        return record

    def end_of(self, task_id: int) -> httpx.Response:
        """The answer once the task has finished."""
        deadline = time.monotonic() + FINISHED_WITHIN_S
        while time.monotonic() < deadline:
            answer = self.client.get("/api/whisper/tasks/result", params={"task_id": task_id, "wait_s": 20})
            if answer.status_code != 202:
                return answer
        raise AssertionError(f"task {task_id} did not finish: {answer.text}")

    def transcribe(self, media: bytes, name: str = "speech.wav", **fields: str) -> dict[str, Any]:
        """Uploads a recording and returns its record once it is completed."""
        answer = self.end_of(self.create(media, name, **fields)["id"])
        assert answer.status_code == 200, answer.text
        record: dict[str, Any] = answer.json()["data"]
        return record

    def media_files(self) -> list[Path]:
        """What lies in the media store."""
        return [path for path in (self.data_dir / "media").rglob("*") if path.is_file()]


@dataclass(frozen=True)
class Sites:
    """TikTok and a server of plain files, in a process of their own; see ``tests.standins.site``."""

    url: str
    ca_file: Path


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """The stand-ins, listening."""
    folder, port = tmp_path_factory.mktemp("sites"), _free_port()
    command = [sys.executable, "-m", "tests.standins.site", "--port", str(port), "--folder", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert b"The sites are at" in process.stdout.readline()
            yield Sites(f"http://127.0.0.1:{port}", folder / "authority.pem")
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def llm() -> Iterator[LlmServer]:
    """The language model's server."""
    with running_llm_server() as server:
        yield server


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, llm: LlmServer, sites: Sites) -> Iterator[Service]:
    """The application, ready. TikTok is reached by way of a proxy, which is the stand-in."""
    data_dir = tmp_path_factory.mktemp("service")
    environment = {
        "MURMURATION_DATA_DIR": str(data_dir),
        "MURMURATION_HTTP__UPLOAD_IDLE_TIMEOUT_S": str(UPLOAD_IDLE_TIMEOUT_S),
        "MURMURATION_MEDIA__MAX_UPLOAD_BYTES": str(32 * 1024 * 1024),
        "MURMURATION_MEDIA__MAX_DURATION_S": "900",
        "MURMURATION_LLM__BASE_URL": llm.base_url,
        "MURMURATION_LLM__MODEL": "stand-in",
        "MURMURATION_NETWORK__ALLOW_PRIVATE_HOSTS": '["127.0.0.1"]',
        "MURMURATION_NETWORK__PROXY_RESOLVES": "true",
        "MURMURATION_NETWORK__CA_FILE": str(sites.ca_file),
        "MURMURATION_CRAWL__PLATFORMS": json.dumps({"tiktok": {"proxy": sites.url}}),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, at import and start
        with pytest.MonkeyPatch.context() as patch:  # the service inherits it; other tests must not see it
            for name, value in environment.items():
                patch.setenv(name, value)
            address = stack.enter_context(_application())
        client = stack.enter_context(httpx.Client(base_url=address, timeout=60.0, trust_env=False))
        _wait_until_ready(client)
        yield Service(client, data_dir)


class _application:  # noqa: N801 - reads as the verb it is
    """Ray and the application, from entry to exit."""

    def __enter__(self) -> str:
        import ray
        from ray import serve

        from deployments.app import BuildArgs, build

        port = _free_port()
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(build(BuildArgs(config="cpu", device="cpu")), name="murmuration")
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        import ray
        from ray import serve

        serve.shutdown()
        ray.shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while (answer := client.get("/api/health/ready")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.2)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits until a condition holds, and fails if it never does."""

    def wait(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.05)

    return wait
