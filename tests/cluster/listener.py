"""The cluster of this folder's tests, and who listens to it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.local_cluster import LocalCluster

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
    """A server that accepts callbacks and spans.

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
def listening() -> Iterator[Listener]:
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
            """Log nothing: the tests read the requests that arrived."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        listener = Listener(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield listener
        finally:
            server.shutdown()
            thread.join()
