"""The latency of an 11 s clip while three one-hour files are transcribed, and its cost for them.

The clip comes at `high` while the files run at `low`, then at `normal` beside `normal`, and before both on an idle
service. What the files get done per second is measured with and without urgent clips between.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.client import Record, ServiceClient
from tests.benchmarks.latency import clip
from tests.benchmarks.reports import report
from tests.benchmarks.timing import Runs
from tests.support import speech
from tests.support.tables import percentile

LONG_FILES = 3
LANGUAGE = "en"
SETTLE_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Load:
    """Clips at one priority while files of another run."""

    clips: str
    files: str


def main() -> None:
    chosen = arguments().parse_args()
    service = ServiceClient(chosen.url)
    service.wait_until_ready(60.0)
    with tempfile.TemporaryDirectory() as folder:
        short = clip(Path(folder), LANGUAGE)
        hour = speech.recording(speech.of_language(LANGUAGE), chosen.duration, seed=1)
        long = speech.encode(hour.audio, Path(folder) / "hour.m4a")
        rows = [_row("idle", clip_seconds(service, short, "high", chosen.clips, chosen.pause), "", "")]
        for load in (Load("high", "low"), Load("normal", "normal")):
            with working(service, long, load.files) as files:
                undisturbed = progress_per_second(service, files, chosen.quiet)
                started, before = time.monotonic(), _done_s(service, files)
                waits = clip_seconds(service, short, load.clips, chosen.clips, chosen.pause)
                disturbed = (_done_s(service, files) - before) / (time.monotonic() - started)
            name = f"`{load.clips}` beside {LONG_FILES} × {chosen.duration / 60:.0f} min at `{load.files}`"
            rows.append(_row(name, waits, f"{undisturbed:.1f}", f"{disturbed:.1f}"))
    report("One 11 s clip", ["when", "p50", "p95", "max", "files' RTFx without clips", "with clips"], rows)


def arguments() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--url", default="http://127.0.0.1:8000", help="a service that is ready")
    options.add_argument("--clips", type=int, default=20, help="clips in each row")
    options.add_argument("--pause", type=float, default=2.0, help="seconds between a clip's end and the next")
    options.add_argument("--quiet", type=float, default=30.0, help="seconds over which the files are measured alone")
    options.add_argument("--duration", type=float, default=3600.0, help="seconds of each long file")
    return options


def clip_seconds(service: ServiceClient, path: Path, priority: str, count: int, pause_s: float) -> list[float]:
    """Return the seconds from upload to transcript of one clip after another."""
    waits = Runs[Record]()
    for _ in range(count):
        waits.measure(lambda: service.transcribe(path, language=LANGUAGE, priority=priority))
        time.sleep(pause_s)
    return waits.seconds


@contextmanager
def working(service: ServiceClient, path: Path, priority: str) -> Iterator[Sequence[int]]:
    """Long files that are all being transcribed while the block runs, and are removed after it."""
    files = [service.create(path, language=LANGUAGE, priority=priority) for _ in range(LONG_FILES)]
    try:
        _wait_until_split(service, files)
        yield files
        if any(service.record(task)["status"] == "completed" for task in files):
            raise RuntimeError("A long file was finished before the measurement was: use a longer --duration.")
    finally:
        service.clean_up()


def progress_per_second(service: ServiceClient, files: Sequence[int], duration_s: float) -> float:
    """Return the seconds of audio that the files progress per second."""
    started, before = time.monotonic(), _done_s(service, files)
    time.sleep(duration_s)
    return (_done_s(service, files) - before) / (time.monotonic() - started)


def _wait_until_split(service: ServiceClient, files: Sequence[int]) -> None:
    """Progress is known once a file has been cut; until then decoding it competes with the model for the cores."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while any(service.record(task)["progress"] is None for task in files):
        if time.monotonic() > deadline:
            raise TimeoutError(f"The long files were not cut within {SETTLE_TIMEOUT_S:.0f} s.")
        time.sleep(1.0)


def _done_s(service: ServiceClient, files: Sequence[int]) -> float:
    records = [service.record(task) for task in files]
    done: list[float] = [record["progress"] * record["file_duration"] for record in records]
    return sum(done)


def _row(name: str, waits: Sequence[float], undisturbed: str, disturbed: str) -> list[str]:
    figures = (percentile(waits, 50), percentile(waits, 95), max(waits))
    return [name, *(f"{figure:.2f} s" for figure in figures), undisturbed, disturbed]


if __name__ == "__main__":
    main()
