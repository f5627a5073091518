"""One cluster for all tests of this folder: a head, GPU nodes that come and go, MariaDB, and who listens to it all."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.listener import POLICY, SCALING, Cluster, listening
from tests.standins.llm import running_llm_server
from tests.support.local_cluster import local_cluster, serve_config


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without GPUs, the application deployed on it, and no GPU node yet."""
    home = Path(tempfile.mkdtemp(prefix="mk-", dir="/tmp"))  # Ray's sockets need a short path
    try:
        with ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's own
            listener = stack.enter_context(listening())
            llm = stack.enter_context(running_llm_server())
            running = stack.enter_context(
                local_cluster(
                    home,
                    model="waiting-20x",
                    settings={
                        "MURMURATION_TRACING__ENDPOINT": f"{listener.url}/v1/traces",
                        "MURMURATION_LLM__BASE_URL": llm.base_url,
                        "MURMURATION_LLM__MODEL": "stand-in",
                        "MURMURATION_LLM__PRICES": '{"stand-in": {"input_per_million": 1, "output_per_million": 2}}',
                        "MURMURATION_NETWORK__ALLOW_PRIVATE_HOSTS": '["127.0.0.1"]',
                        "MURMURATION_DISPATCH__LEASE_DURATION_S": "6",
                        "MURMURATION_DISPATCH__HEARTBEAT_S": "1",
                        "MURMURATION_DISPATCH__POLL_S": "1",
                        "OTEL_BSP_SCHEDULE_DELAY": "200",
                        "RAY_health_check_period_ms": "500",  # a node that is gone is missed within 3 s, not 15
                        "KUBERAY_GEN_RAY_START_CMD": "ray start",  # GPU nodes may come, as on KubeRay
                    },
                )
            )
            running.application.deploy(serve_config(running.http_port, SCALING, POLICY))
            yield Cluster(running.cluster, running.application, running.http_port, running.database, listener)
    finally:
        shutil.rmtree(home, ignore_errors=True)
