"""The latency of `health/check` while large extractions run, beside an idle service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from tests.benchmarks.arguments import parser
from tests.benchmarks.client import ServiceClient
from tests.benchmarks.reports import median_s, report
from tests.benchmarks.timing import Runs
from tests.support import speech
from tests.support.tables import percentile

PAUSE_S = 0.02


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--files", type=int, default=10, help="extractions at the same time")
    arguments.add_argument("--minutes", type=float, default=30.0, help="length of each recording")
    chosen = arguments.parse_args()
    ServiceClient(chosen.url).wait_until_ready(60.0)
    with TemporaryDirectory() as folder:
        samples = speech.recording(speech.of_language("en"), chosen.minutes * 60, seed=3).audio
        recording = speech.encode(samples, Path(folder) / "recording.m4a")
        size_mb = recording.stat().st_size / 1e6
        with ProcessPoolExecutor(chosen.files) as clients:  # or their work would be timed in this process
            idle = checks_during(chosen.url, [clients.submit(time.sleep, 5.0)])
            extractions = [clients.submit(extract, chosen.url, recording) for _ in range(chosen.files)]
            busy = checks_during(chosen.url, extractions)
            seconds = [extraction.result() for extraction in extractions]
    rows = [
        [name, str(len(runs)), *(f"{1000 * percentile(runs, percent):.1f} ms" for percent in (50, 99, 100))]
        for name, runs in (("idle", idle), ("extracting", busy))
    ]
    title = (
        f"health/check beside {chosen.files} extractions of {chosen.minutes:.0f} min each ({size_mb:.0f} MB m4a → wav)"
    )
    report(title, ["service", "checks", "median", "p99", "longest"], rows)
    print(f"\nExtractions: {median_s(seconds)}")


def extract(url: str, recording: Path) -> float:
    """Return the seconds that one extraction takes, its upload and its download included."""
    started = time.perf_counter()
    with recording.open("rb") as file, httpx.Client(base_url=url, timeout=600.0, trust_env=False) as client:
        request = client.build_request("POST", "/api/whisper/extract_audio", files={"file": (recording.name, file)})
        answer = client.send(request, stream=True)
        answer.raise_for_status()
        for _ in answer.iter_bytes():
            pass
    return time.perf_counter() - started


def checks_during(url: str, work: Sequence[Future[Any]]) -> list[float]:
    """Return the seconds of each `health/check`, one after the other, until the work is done."""
    checks = Runs[httpx.Response]()
    with httpx.Client(base_url=url, timeout=30.0, trust_env=False) as client:
        while not all(future.done() for future in work):
            checks.measure(lambda: client.get("/api/health/check").raise_for_status())
            time.sleep(PAUSE_S)
    return checks.seconds


if __name__ == "__main__":
    main()
