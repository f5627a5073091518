"""One running service for all tests of this folder: real Ray, real model, real sockets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.serve.service import UPLOAD_IDLE_TIMEOUT_S, Service, Sites
from tests.standins.llm import LlmServer, running_llm_server
from tests.support import waiting
from tests.support.processes import ROOT, free_port

READY_WITHIN_S = 120.0


@pytest.fixture(scope="package")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """The stand-ins, listening."""
    folder, port = tmp_path_factory.mktemp("sites"), free_port()
    command = [sys.executable, "-m", "tests.standins.site", "--port", str(port), "--folder", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert b"The sites are at" in process.stdout.readline()
            yield Sites(f"http://127.0.0.1:{port}", folder / "authority.pem")
        finally:
            process.terminate()


@pytest.fixture(scope="package")
def llm() -> Iterator[LlmServer]:
    """The language model's server."""
    with running_llm_server() as server:
        yield server


@pytest.fixture(scope="package")
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

        port = free_port()
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(build(BuildArgs(config="cpu", device="cpu")), name="murmuration")
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()  # Serve's own end would wait for each replica's


def _wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while (answer := client.get("/api/health/ready")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.2)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits until a condition holds, and fails if it never does."""

    def wait(holds: Callable[[], bool]) -> None:
        waiting.eventually(holds, "the condition", within_s=20.0, poll_s=0.05)

    return wait
