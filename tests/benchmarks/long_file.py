"""An hour of speech over HTTP, beside `BatchedInferencePipeline`: time, errors, times of segments, CPU and memory.

The service must run on this machine: its processes are watched while it works. Times are judged by edges: those of
segments against those of the samples that were placed (a segment may begin within a sample), or, with `--words`, those
of the samples against those of words, which is the sharper question.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.arguments import contenders, parser
from tests.benchmarks.client import ServiceClient
from tests.benchmarks.processes import Usage, Watch
from tests.benchmarks.reports import median_s, report, times
from tests.benchmarks.rivals import Heard
from tests.benchmarks.timing import Runs
from tests.support import speech
from tests.support.accuracy import count_errors, distances
from tests.support.tables import percentile

NEAR_S = 0.3
"""How far an edge of a segment may be from the edge of a sample that was placed, and with words the other way round."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.set_defaults(rounds=1)
    arguments.add_argument("--language", default="en", help="of the recording; given to both sides")
    arguments.add_argument("--format", default="m4a", choices=speech.FORMATS, help="of the file")
    arguments.add_argument("--duration", type=float, default=3600.0, help="seconds of the recording")
    arguments.add_argument("--words", action="store_true", help="ask for word times, and judge those")
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
                runs["service"].measure(lambda: over_http(sides.service, path, chosen.language, words=chosen.words))
            sides.service.clean_up()
            if not chosen.no_rival:
                runs["batched"].measure(lambda: sides.rival.batched(path, chosen.language, words=chosen.words))
    title = f"{joined.duration_s / 60:.1f} minutes of {chosen.language}, {chosen.format}, {size_mb:.0f} MB"
    present(title, joined, chosen, runs)
    present_processes(watch.by_memory())


def over_http(service: ServiceClient, path: Path, language: str, *, words: bool) -> Heard:
    """Transcribe once by the service, with the times of words or of segments."""
    result = service.transcribe(path, language=language, word_timestamps=str(words).lower())["result"]
    segments = result["segments"]
    timed = [word for segment in segments for word in segment["words"]] if words else segments
    return Heard(result["text"], tuple((one["start"], one["end"]) for one in timed))


def present(title: str, joined: speech.Joined, chosen: argparse.Namespace, runs: dict[str, Runs[Heard]]) -> None:
    """Print the speed, the errors and the errors of times."""
    ours = runs["service"].seconds
    placed = [(placement.start_s, placement.end_s) for placement in joined.placements]
    rows = []
    for way, run in runs.items():
        apart = distances(placed, run.last.spans) if chosen.words else distances(run.last.spans, placed)
        near = 100.0 * sum(distance <= NEAR_S for distance in apart) / len(apart)
        rows.append(
            [
                way,
                median_s(run.seconds, 1),
                f"{joined.duration_s / run.median_s:.1f}",
                times(ours, run.seconds),
                f"{count_errors(chosen.language, joined.text, run.last.text).percent:.2f} %",
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
        f"times within {NEAR_S} s",
        "p95",
    ]
    report(title, headers, rows)


def present_processes(usages: Sequence[Usage]) -> None:
    """Print the growth of each process, and its share of all CPU time."""
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
