"""Words lost in speech at many gains, on one channel, at 8 kHz, in noise and beside silence.

Sets: `robustness`, 648 recordings of samples and of joins in nine languages; `gains`, 65 English ones. Contenders are
compared recording by recording. One is truncated if its last two words (three characters of Chinese and Japanese) or
more are missing, one without any text included. Slices in which ours has significantly more deletions or truncated
recordings than plain faster-whisper are marked. `--cache` keeps results: a run that is cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.domain.decoding.repetition import has_repetition_loop
from tests.benchmarks import local_contenders
from tests.benchmarks.bootstrap import Interval, difference_per_100
from tests.benchmarks.local_contenders import TranscriptionJob
from tests.benchmarks.reports import report
from tests.benchmarks.result_cache import Result
from tests.benchmarks.robustness_set import SETS, Recording, selected
from tests.support.accuracy import WITHOUT_SPACES, Alignment, align

WORSE = "**worse**"
"""Marks a slice in which ours is significantly worse."""

MOST_VALUES = 13
"""A kind of slice with more values than this, as the bases of the large set, has no rows in the table."""


@dataclass(frozen=True)
class Measured:
    """A contender's result for a recording, measured against its reference text."""

    recording: Recording
    result: Result

    @cached_property
    def alignment(self) -> Alignment:
        base = self.recording.base
        return align(base.lang, base.text, self.result.text)

    @property
    def is_truncated(self) -> bool:
        """True if the text ends at least two words, or three characters, too early."""
        return self.alignment.trailing_deletions >= (3 if self.recording.base.lang in WITHOUT_SPACES else 2)


@dataclass(frozen=True, slots=True)
class Pair:
    """The same recording by two contenders."""

    ours: Measured
    theirs: Measured

    @property
    def extra_deletions(self) -> int:
        return self.ours.alignment.deletions - self.theirs.alignment.deletions


def main() -> None:
    arguments = _parser().parse_args()
    every = selected(
        SETS[arguments.set](),
        every=arguments.every,
        base_names=[name for name in arguments.bases.split(",") if name],
        slices=[name for name in arguments.slices.split(",") if name],
    )
    if not every:
        raise SystemExit("No recording is left to transcribe.")
    measured = measure(every, arguments)
    title = f"Set `{arguments.set}`, {len(every)} recordings, {arguments.model} {arguments.compute_type}"
    present(title + (", language detected" if arguments.detect else ""), measured)
    ours, theirs = arguments.compare.split(",")
    if ours in measured and theirs in measured:
        pairs = [Pair(*both) for both in zip(measured[ours], measured[theirs], strict=True)]
        present_slices(f"{ours} beside {theirs}", pairs)
        present_worst(pairs, arguments.worst)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    local_contenders.add_arguments(parser, "plain,batched,ours-short")
    parser.add_argument("--set", choices=SETS, default="robustness")
    parser.add_argument("--detect", action="store_true", help="let every contender detect the language")
    parser.add_argument("--every", type=int, default=1, help="only each so-manieth recording, for a quick look")
    parser.add_argument("--bases", default="", help="only bases with one of these parts in their names")
    parser.add_argument("--slices", default="", help="only these, as `kind=value,…` with values as in the table")
    parser.add_argument("--compare", default="ours-short,plain", help="whose slices are compared: ours and theirs")
    parser.add_argument(
        "--worst", type=int, default=0, help="print so many recordings that lose more words than theirs"
    )
    return parser


def measure(recordings: Sequence[Recording], arguments: argparse.Namespace) -> dict[str, list[Measured]]:
    """Return what every contender makes of the recordings, in order."""
    with tempfile.TemporaryDirectory() as folder:
        written = [recording.written(Path(folder)) for recording in recordings]
        requests = [
            TranscriptionJob(one.name, one.path, None if arguments.detect else one.base.lang) for one in written
        ]
        by_contender = local_contenders.results(arguments, requests)
    return {
        name: [Measured(*pair) for pair in zip(recordings, results, strict=True)]
        for name, results in by_contender.items()
    }


def present(title: str, measured: dict[str, list[Measured]]) -> None:
    """Print what went wrong for each contender, and how long it took."""
    headers = [
        "",
        "deletions %",
        "insertions %",
        "substitutions %",
        "errors %",
        "truncated",
        "empty",
        "loops",
        "seconds",
    ]
    report(title, headers, [[name, *_row(results)] for name, results in measured.items()])


def _row(results: Sequence[Measured]) -> list[str]:
    alignments = [one.alignment for one in results]
    length = sum(one.length for one in alignments)
    counts = [
        sum(getattr(one, kind) for one in alignments) for kind in ("deletions", "insertions", "substitutions", "errors")
    ]
    return [
        *(f"{100 * count / length:.2f}" for count in counts),
        str(sum(one.is_truncated for one in results)),
        str(sum(not one.result.text.strip() for one in results)),
        str(sum(has_repetition_loop(one.result.text) for one in results)),
        f"{sum(one.result.seconds for one in results):.1f}",
    ]


def present_slices(title: str, pairs: Sequence[Pair]) -> None:
    """Print where ours loses more words, or more ends, than theirs."""
    headers = [
        *("slice", "recordings", "deletions %", "theirs", "difference (95 % bounds)", ""),
        *("truncated %", "theirs", "difference (95 % bounds)", ""),
    ]
    report(title, headers, [[name, *_slice_row(members)] for name, members in slices_of(pairs).items()])


def slices_of(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """Return the pairs of each slice, by kind and value; first all of them."""
    groups: dict[str, dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        for kind, value in {"": "all", **pair.ours.recording.slices}.items():
            groups[kind][value].append(pair)
    shown = {kind: of for kind, of in groups.items() if len(of) <= MOST_VALUES}
    return {
        f"{kind}={value}" if kind else value: of[value]
        for kind, of in shown.items()
        for value in sorted(of, key=_order)
    }


def _order(value: str) -> tuple[float, str]:
    number = re.search(r"[-+]?\d+(\.\d+)?", value)
    return (float(number[0]) if number else 0.0, value)


def _slice_row(pairs: Sequence[Pair]) -> list[str]:
    lengths = [pair.ours.alignment.length for pair in pairs]
    ours, theirs = ([getattr(pair, side).alignment.deletions for pair in pairs] for side in ("ours", "theirs"))
    truncated, also = ([getattr(pair, side).is_truncated for pair in pairs] for side in ("ours", "theirs"))
    return [str(len(pairs)), *_compared(ours, theirs, lengths), *_compared(truncated, also, [1] * len(pairs))]


def _compared(ours: Sequence[float], theirs: Sequence[float], lengths: Sequence[float]) -> list[str]:
    total = sum(lengths)
    between: Interval = difference_per_100(ours, theirs, lengths)
    shares = [f"{100 * sum(counts) / total:.1f}" for counts in (ours, theirs)]
    return [*shares, str(between), WORSE if between.is_above_zero else ""]


def present_worst(pairs: Iterable[Pair], count: int) -> None:
    """Print the recordings in which ours has the most deletions more than theirs."""
    worst = sorted(pairs, key=lambda pair: -pair.extra_deletions)[:count]
    for pair in (pair for pair in worst if pair.extra_deletions > 0):
        print(f"\n{pair.ours.recording.name}: {pair.extra_deletions} more deletions")
        for side, text in (
            ("reference", pair.ours.recording.base.text),
            ("ours", pair.ours.result.text),
            ("theirs", pair.theirs.result.text),
        ):
            print(f"  {side:9} {text}", flush=True)


if __name__ == "__main__":
    main()
