"""An hour of speech over HTTP, beside `BatchedInferencePipeline`: time, errors, times of segments, CPU and memory.

The service must run on this machine: its processes are watched while it works.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests import speech
from tests.benchmarks.accuracy import count_errors, distances
from tests.benchmarks.arguments import contenders, parser
from tests.benchmarks.client import Service
from tests.benchmarks.processes import Usage, Watch
from tests.benchmarks.rivals import Heard
from tests.benchmarks.tables import median_s, percentile, report, times
from tests.benchmarks.timing import Runs

NEAR_S = 0.3
"""How far a segment's start may be from where its speech was placed."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.set_defaults(rounds=1)
    arguments.add_argument("--language", default="en", help="of the recording; given to both sides")
    arguments.add_argument("--format", default="m4a", choices=speech.FORMATS, help="of the file")
    arguments.add_argument("--duration", type=float, default=3600.0, help="seconds of the recording")
    arguments.add_argument("--no-rival", action="store_true", help="measure the service alone")
    chosen = arguments.parse_args()
    sides = contenders(chosen)

    joined = speech.recording(speech.of_language(chosen.language), chosen.duration, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        path = speech.encode(joined.audio, Path(folder) / f"hour.{chosen.format}")
        size_mb = path.stat().st_size / 1e6
        runs = {"service": Runs[Heard]()} | ({} if chosen.no_rival else {"batched": Runs[Heard]()})
        for _ in range(chosen.rounds):
            with Watch(sides.service.url.port or 80) as watch:
                runs["service"].measure(lambda: over_http(sides.service, path, chosen.language))
            if not chosen.no_rival:
                runs["batched"].measure(lambda: sides.rival.batched(path, chosen.language))
    title = f"{joined.duration_s / 60:.0f} minutes of {chosen.language}, {chosen.format}, {size_mb:.0f} MB"
    present(title, joined, chosen.language, runs)
    present_processes(watch.by_memory())


def over_http(service: Service, path: Path, language: str) -> Heard:
    """One transcription by the service."""
    result = service.transcribe(path, language=language)["result"]
    return Heard(result["text"], tuple((segment["start"], segment["end"]) for segment in result["segments"]))


def present(title: str, joined: speech.Joined, language: str, runs: dict[str, Runs[Heard]]) -> None:
    """How fast, how right, and how well placed."""
    ours = runs["service"].seconds
    rows = []
    for way, run in runs.items():
        apart = distances(joined.placements, run.last.spans)
        near = 100.0 * sum(distance <= NEAR_S for distance in apart) / len(apart)
        rows.append(
            [
                way,
                median_s(run.seconds, 1),
                f"{joined.duration_s / run.median_s:.1f}",
                times(ours, run.seconds),
                f"{count_errors(language, joined.text, run.last.text).percent:.2f} %",
                f"{near:.1f} %",
                f"{percentile(apart, 95):.2f} s",
            ]
        )
    headers = [
        "how",
        "median (range)",
        "RTFx",
        "the service's time ×",
        "error rate",
        f"starts within {NEAR_S} s",
        "p95",
    ]
    report(title, headers, rows)


def present_processes(usages: Sequence[Usage]) -> None:
    """Which process grew by how much, and its share of all CPU time."""
    total_s = sum(usage.cpu_s for usage in usages) or 1.0
    rows = [
        [
            usage.name,
            f"{usage.base_mib:.0f}",
            f"{usage.peak_mib:.0f}",
            f"+{usage.growth_mib:.0f}",
            f"{usage.cpu_s:.1f} s",
            f"{100 * usage.cpu_s / total_s:.1f} %",
        ]
        for usage in usages
    ]
    headers = ["process", "before, MiB", "peak, MiB", "growth, MiB", "CPU", "of all CPU"]
    report("Processes during that run", headers, rows)


if __name__ == "__main__":
    main()
