"""Times of segments and cues in speech with long pauses and music between, beside plain faster-whisper.

A start within speech is right, one outside is as wrong as the next speech is far away; ends likewise, to the speech
before. The other way round, each sample whose text was found is compared with the nearest segment (with `--words`, the
nearest word). `--cache` keeps results: a run that is cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.benchmarks import local_contenders
from tests.benchmarks.local_contenders import TranscriptionJob
from tests.benchmarks.placement_measures import (
    LIMITS_S,
    PAUSE_S,
    MatchedWords,
    Observation,
    SampleRecall,
    covers_pause,
    cues,
    edge_observations,
    matched_words,
    overlaps,
    sample_observations,
    sample_recall,
)
from tests.benchmarks.placement_set import JOINS, Join, WrittenJoin, placement_set
from tests.benchmarks.reports import report
from tests.benchmarks.result_cache import Result, TimedText
from tests.support import speech
from tests.support.tables import percentile

KINDS = ("segment", "cue", "sample", "sample beside a pause")
"""Kinds of things that have a start and an end."""


@dataclass(frozen=True)
class MeasuredPlacement:
    """A contender's result for a recording, measured against the placements of its samples."""

    written: WrittenJoin
    result: Result

    @cached_property
    def cues(self) -> list[TimedText]:
        return cues(self.result, self.written.duration_s)

    @cached_property
    def observations(self) -> list[Observation]:
        placements = self.written.placements
        return [
            *edge_observations("segment", self.result.segments, placements),
            *edge_observations("cue", self.cues, placements),
            *sample_observations(self.result, placements),
        ]

    @cached_property
    def recalls(self) -> list[SampleRecall]:
        """Recall of each sample's text in the segments that overlap it."""
        return [sample_recall(placement, self.result.segments) for placement in self.written.placements]

    @cached_property
    def matched(self) -> MatchedWords:
        """Words of the samples that the transcript holds, in place and misplaced."""
        return matched_words(self.result.segments, self.written.placements)

    def over_pauses(self, texts: Iterable[TimedText]) -> int:
        """Return how many texts cover more than a second between two samples."""
        return sum(covers_pause(one, self.written.placements) for one in texts)

    @property
    def outside_speech(self) -> int:
        """Number of segments that overlap no sample."""
        return sum(
            not any(overlaps(segment, placement) for placement in self.written.placements)
            for segment in self.result.segments
        )


def main() -> None:
    arguments = _parser().parse_args()
    joins = placement_set()[: arguments.joins]
    measured = measure(joins, arguments)
    audio_s = sum(one.written.duration_s for one in next(iter(measured.values())))
    title = f"{len(joins)} recordings, {audio_s / 60:.0f} minutes, {arguments.model} {arguments.compute_type}"
    present_times(f"Times, {title}{', words' if arguments.words else ''}", measured)
    present_counts("Pauses and text", measured)
    for name, results in measured.items():
        present_worst(name, results, arguments.worst)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    local_contenders.add_arguments(parser, "plain,ours-short")
    parser.add_argument("--joins", type=int, default=JOINS, help="only the first so many recordings, for a quick look")
    parser.add_argument("--words", action="store_true", help="ask for the times of words")
    parser.add_argument("--worst", type=int, default=0, help="print each contender's so many worst starts and ends")
    return parser


def measure(joins: Sequence[Join], arguments: argparse.Namespace) -> dict[str, list[MeasuredPlacement]]:
    """Return what every contender makes of the recordings, in order."""
    with tempfile.TemporaryDirectory() as folder:
        written = [join.written(Path(folder)) for join in joins]
        requests = [TranscriptionJob(one.name, one.path, one.lang) for one in written]
        by_contender = local_contenders.results(arguments, requests)
    return {
        name: [MeasuredPlacement(*pair) for pair in zip(written, results, strict=True)]
        for name, results in by_contender.items()
    }


def present_times(title: str, measured: dict[str, list[MeasuredPlacement]]) -> None:
    """Print how the errors of starts and ends are distributed."""
    headers = ["time of", "contender", "count", "p50", "p90", "p95", "p99", "max", "within the limit"]
    rows = [
        [f"{what} {edge}, {LIMITS_S[edge]} s", name, *_distribution(what, edge, results)]
        for what in KINDS
        for edge in LIMITS_S
        for name, results in measured.items()
    ]
    report(title, headers, rows)


def _distribution(what: str, edge: str, results: Sequence[MeasuredPlacement]) -> list[str]:
    chosen = [each for one in results for each in one.observations if (each.what, each.edge) == (what, edge)]
    if not chosen:
        return ["0", *["–"] * 6]
    errors = [each.error_s for each in chosen]
    good = 100 * sum(each.is_good for each in chosen) / len(chosen)
    return [str(len(chosen)), *(f"{percentile(errors, rank):.2f}" for rank in (50, 90, 95, 99, 100)), f"{good:.1f} %"]


def present_counts(title: str, measured: dict[str, list[MeasuredPlacement]]) -> None:
    """Print how many texts cover pauses, and how much of the samples' text is where they are."""
    headers = [
        *("", "segments", f"over {PAUSE_S:g} s of a pause", "without speech", "cues", f"over {PAUSE_S:g} s of a pause"),
        *("words found", "of these in place", "samples found in place", "seconds"),
    ]
    report(title, headers, [[name, *_counts(results)] for name, results in measured.items()])


def _counts(results: Sequence[MeasuredPlacement]) -> list[str]:
    recalls = [recall for one in results for recall in one.recalls]
    samples = 100 * sum(recall.is_found for recall in recalls) / len(recalls)
    length = sum(recall.length for recall in recalls)
    words, misplaced = (sum(getattr(one.matched, kind) for one in results) for kind in ("hits", "misplaced"))
    return [
        str(sum(len(one.result.segments) for one in results)),
        str(sum(one.over_pauses(one.result.segments) for one in results)),
        str(sum(one.outside_speech for one in results)),
        str(sum(len(one.cues) for one in results)),
        str(sum(one.over_pauses(one.cues) for one in results)),
        f"{100 * words / length:.1f} %",
        f"{100 * (1 - misplaced / max(1, words)):.1f} %",
        f"{samples:.1f} %",
        f"{sum(one.result.seconds for one in results):.1f}",
    ]


def present_worst(name: str, results: Iterable[MeasuredPlacement], count: int) -> None:
    """Print the segments, cues and samples whose times are furthest off."""
    bad = [(observation, one) for one in results for observation in one.observations if not observation.is_good]
    for observation, one in sorted(bad, key=lambda pair: -pair[0].error_s)[:count]:
        speech_at = ", ".join(f"{placed.start_s:.2f}–{placed.end_s:.2f}" for placed in _near(observation, one))
        print(
            f"{name} {one.written.name}: {observation.what} {observation.edge} at {observation.time_s:.2f} s "
            f"is {observation.error_s:.2f} s off; speech at {speech_at}; {observation.text.strip()}",
            flush=True,
        )


def _near(observation: Observation, one: MeasuredPlacement) -> list[speech.Placement]:
    """Return the two samples nearest to a time."""

    def distance(placed: speech.Placement) -> float:
        return max(placed.start_s - observation.time_s, observation.time_s - placed.end_s, 0.0)

    return sorted(sorted(one.written.placements, key=distance)[:2])


if __name__ == "__main__":
    main()
