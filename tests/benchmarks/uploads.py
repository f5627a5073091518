"""Memory and time of one large upload: as a form and by tus, through Serve's Python proxy and through HAProxy.

A service of its own is started for each proxy, with a Ray cluster, ports, a home and data of its own. What is uploaded
is no recording: its task fails, and is deleted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import yaml
from tusclient.client import TusClient

from tests.benchmarks.client import ServiceClient
from tests.benchmarks.processes import MEBIBYTE, Watch
from tests.benchmarks.reports import report
from tests.support.processes import ROOT, free_port, haproxy, on_port, running, surroundings
from tests.support.tables import percentile

CREATE = "/api/whisper/tasks/create"
PIECE_BYTES = 8 * MEBIBYTE
PROBE_PERIOD_S = 0.05

PARALLEL = 4

Upload = Callable[[str, Path], list[int]]
"""Uploads a file and returns the ids of its tasks."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--mebibytes", type=int, default=1024, help="size of the file")
    arguments.add_argument("--proxies", default="python,haproxy", help="which, by commas")
    arguments.add_argument("--ways", default=",".join(WAYS), help="which, by commas, in this order")
    chosen = arguments.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="m-", dir="/tmp") as folder:  # Ray's sockets need a short path
        file = Path(folder) / "large.bin"
        with file.open("wb") as writing:
            for number in range(chosen.mebibytes):
                writing.write(number.to_bytes(4, "big") * (MEBIBYTE // 4))
        for proxy in chosen.proxies.split(","):
            with service(Path(folder), proxy) as (url, port):
                rows += [measured(proxy, way, url, port, file) for way in chosen.ways.split(",")]
    headers = ["proxy", "upload", "time", "proxy grew by", "Ingress grew by", "`health/check` meanwhile, p50 / p99"]
    report(f"Uploads of {chosen.mebibytes} MiB, by tus in requests of {PIECE_BYTES // MEBIBYTE} MiB", headers, rows)


@contextmanager
def service(home: Path, proxy: str) -> Iterator[tuple[str, int]]:
    port = free_port()
    config = home / "serve_config.yaml"
    config.write_text(yaml.safe_dump(on_port(yaml.safe_load((ROOT / "serve_config.yaml").read_text()), port)))
    environment = surroundings(home) | (haproxy(home) if proxy == "haproxy" else {})
    with running([sys.executable, "-m", "ray.serve.scripts", "run", str(config)], environment):
        url = f"http://127.0.0.1:{port}"
        ServiceClient(url).wait_until_ready(180.0)
        yield url, port


def measured(proxy: str, way: str, url: str, port: int, file: Path) -> list[str]:
    with Watch(port) as watch, Probe(url) as probe:
        started = time.monotonic()
        task_ids = WAYS[way](url, file)
        wall_s = time.monotonic() - started
    for task_id in task_ids:
        httpx.delete(f"{url}/api/whisper/tasks/delete", params={"task_id": task_id}, timeout=60).raise_for_status()
    grown = {"proxy": 0.0, "Ingress": 0.0}
    for usage in watch.usages.values():
        name = "Ingress" if usage.name == "Ingress" else "proxy" if "proxy" in usage.name.lower() else ""
        if name:
            grown[name] = max(grown[name], usage.growth_mib)
    latency = f"{percentile(probe.seconds, 50) * 1000:.0f} / {percentile(probe.seconds, 99) * 1000:.0f} ms"
    return [proxy, way, f"{wall_s:.1f} s", f"{grown['proxy']:.0f} MiB", f"{grown['Ingress']:.0f} MiB", latency]


def as_form(url: str, file: Path) -> list[int]:
    with file.open("rb") as reading:
        answer = httpx.post(f"{url}{CREATE}", files={"file_upload": ("large.bin", reading)}, timeout=600)
    return [task_of(answer)]


def as_forms_at_once(url: str, file: Path) -> list[int]:
    with ThreadPoolExecutor(PARALLEL) as pool:
        return [task_id for ids in pool.map(as_form, [url] * PARALLEL, [file] * PARALLEL) for task_id in ids]


def by_tus(url: str, file: Path) -> list[int]:
    client = TusClient(f"{url}/api/whisper/uploads")
    uploader = client.uploader(str(file), chunk_size=PIECE_BYTES, metadata={"filename": file.name})
    uploader.upload()
    assert uploader.url
    query = {"upload_id": uploader.url.rpartition("/")[2]}
    return [task_of(httpx.post(f"{url}{CREATE}", params=query, timeout=600))]


def task_of(answer: httpx.Response) -> int:
    answer.raise_for_status()
    task_id: int = answer.json()["data"]["id"]
    return task_id


WAYS: dict[str, Upload] = {"tus": by_tus, "form": as_form, f"{PARALLEL} forms at once": as_forms_at_once}
"""What takes most comes last: Python's proxy does not give memory back."""


@dataclass
class Probe:
    """The times of the service's liveness checks, again and again."""

    url: str
    seconds: list[float] = field(default_factory=list)

    def __enter__(self) -> Probe:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as client:
            while not self._stop.wait(PROBE_PERIOD_S):
                started = time.monotonic()
                client.get("/api/health/check").raise_for_status()
                self.seconds.append(time.monotonic() - started)


if __name__ == "__main__":
    main()
