"""One cluster for all tests of this folder: a head, GPU nodes that come and go, MariaDB, and who listens to it all."""

from __future__ import annotations

import shutil
import tempfile
import threading
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.local_cluster import LocalCluster, local_cluster, serve_config
from tests.standins.llm import running_llm_server

SCALING = {
    "min_replicas": 0,
    "initial_replicas": 1,
    "max_replicas": 2,
    "upscale_delay_s": 0,
    "downscale_delay_s": 1,
    "downscale_to_zero_delay_s": 1,
}
POLICY = {"target_wait_s": 5, "expected_rtfx": 10, "poll_s": 0.3}


@dataclass
class Listener:
    """Takes callbacks and spans.

    Attributes:
        callbacks: ids of the tasks that were called back.
        spans: by trace id, the deployment and the name of each span that arrived.
    """

    url: str
    callbacks: list[int] = field(default_factory=list)
    spans: defaultdict[int, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))

    def take_spans(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            told = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans[int.from_bytes(span.trace_id)].add((told["murmuration.deployment"], span.name))


@dataclass
class Cluster(LocalCluster):
    """The cluster, and who listens to it."""

    listener: Listener


@contextmanager
def _listening() -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                listener.take_spans(body)
            else:
                listener.callbacks.append(int(self.path.rpartition("/")[2]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing: the tests look at what arrived."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        listener = Listener(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield listener
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without GPUs, the application deployed on it, and no GPU node yet."""
    home = Path(tempfile.mkdtemp(prefix="mk-", dir="/tmp"))  # Ray's sockets need a short path
    try:
        with ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's own
            listener = stack.enter_context(_listening())
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
                        "KUBERAY_GEN_RAY_START_CMD": "ray start",  # GPU nodes may come, as on KubeRay
                    },
                )
            )
            running.application.deploy(serve_config(running.http_port, SCALING, POLICY))
            yield Cluster(running.cluster, running.application, running.http_port, running.database, listener)
    finally:
        shutil.rmtree(home, ignore_errors=True)
