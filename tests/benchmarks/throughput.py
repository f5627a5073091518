"""Many files at once over HTTP, beside faster-whisper in this process: audio per second, and errors per language.

Sets: `mixed`, 40 files of which 30 last 1 to 15 s and 10 last 15 to 60 s; `clips`, 100 clips of 1 to 5 s with their
language given; `clips-detect`, the same with detection on all sides.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

from tests.benchmarks.arguments import Contenders, contenders, parser
from tests.benchmarks.reports import median_s, report, times
from tests.benchmarks.timing import Runs
from tests.support import speech
from tests.support.accuracy import WITHOUT_SPACES, ErrorCount, errors_by_language


@dataclass(frozen=True, slots=True)
class Job:
    """One file to transcribe, with what is said in it."""

    path: Path
    lang: str
    text: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class JobSet:
    """Files that are handed in together; whether their language is given with them."""

    name: str
    jobs: tuple[Job, ...]
    language_given: bool = True

    @property
    def duration_s(self) -> float:
        return sum(job.duration_s for job in self.jobs)

    def first(self, count: int | None) -> JobSet:
        return replace(self, jobs=self.jobs[:count])

    def language(self, job: Job) -> str | None:
        return job.lang if self.language_given else None


def main() -> None:
    chosen = arguments().parse_args()
    sides = contenders(chosen)
    with tempfile.TemporaryDirectory() as folder:
        makers: dict[str, Callable[[Path], JobSet]] = {
            "mixed": lambda path: mixed(path, chosen.languages.split(",")),
            "clips": lambda path: clips(path, language_given=True),
            "clips-detect": lambda path: clips(path, language_given=False),
        }
        for name in chosen.sets.split(","):
            files = makers[name](Path(folder)).first(chosen.files)
            present(files, compare(files, sides, chosen.rounds))


def arguments() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--sets", default="mixed,clips,clips-detect", help="which sets, in order")
    options.add_argument("--languages", default="en,es,fr,hi,it,ja,pl,pt,zh", help="of the files of `mixed`")
    options.add_argument("--files", type=int, help="only so many of each set, for a quick look")
    return options


def mixed(folder: Path, languages: Sequence[str]) -> JobSet:
    """40 files, each of one language: 30 of 1 to 15 s, 10 of 15 to 60 s."""
    source = random.Random(40)
    lengths = [source.uniform(1, 15) for _ in range(30)] + [source.uniform(20, 60) for _ in range(10)]
    source.shuffle(lengths)
    jobs = []
    for index, (duration_s, lang) in enumerate(zip(lengths, cycle(languages), strict=False)):
        joined = speech.recording(speech.of_language(lang), duration_s, seed=index)
        path = speech.encode(joined.audio, folder / f"mixed-{index}.flac")
        jobs.append(Job(path, lang, joined.text, joined.duration_s))
    return JobSet("mixed", tuple(jobs))


def clips(_folder: Path, *, language_given: bool) -> JobSet:
    """100 clips of 1 to 5 s in all languages."""
    samples = islice(cycle(speech.corpus()), 100)
    jobs = (Job(sample.path, sample.lang, sample.text, sample.duration_s) for sample in samples)
    return JobSet("clips" if language_given else "clips-detect", tuple(jobs), language_given)


def compare(files: JobSet, sides: Contenders, rounds: int) -> dict[str, Runs[list[str]]]:
    """Run every contender over all files, in turns."""

    def service() -> list[str]:
        jobs = [(job.path, {"language": language} if (language := files.language(job)) else {}) for job in files.jobs]
        return [record["result"]["text"] for record in sides.service.transcribe_all(jobs)]

    ways: dict[str, Callable[[], list[str]]] = {
        "service, all at once": service,
        "plain, file after file": lambda: [sides.rival.plain(j.path, files.language(j)).text for j in files.jobs],
        "batched, file after file": lambda: [sides.rival.batched(j.path, files.language(j)).text for j in files.jobs],
    }
    runs = {way: Runs[list[str]]() for way in ways}
    for _ in range(rounds):
        for way, transcribe in ways.items():
            runs[way].measure(transcribe)
            sides.service.clean_up()
    return runs


def present(files: JobSet, runs: dict[str, Runs[list[str]]]) -> None:
    """Two tables: how fast, and how right."""
    ours = next(iter(runs.values()))
    rows = [
        [
            way,
            median_s(run.seconds, 1),
            f"{files.duration_s / run.median_s:.1f}",
            times(ours.seconds, run.seconds),
        ]
        for way, run in runs.items()
    ]
    title = f"`{files.name}`: {len(files.jobs)} files, {files.duration_s:.0f} s of audio"
    report(title, ["how", "median (range)", "RTFx", "the service's time ×"], rows)

    counts = {way: errors_by_language(_pairs(files, run)) for way, run in runs.items()}
    languages = list(next(iter(counts.values())))
    lines = [[_measure(lang), *(f"{of[lang].percent:.1f} %" for of in counts.values())] for lang in languages]
    totals = [f"{sum(of.values(), start=ErrorCount()).percent:.1f} %" for of in counts.values()]
    report(f"`{files.name}`: error rates", ["language", *counts], [*lines, ["all", *totals]])


def _pairs(files: JobSet, run: Runs[list[str]]) -> list[tuple[str, str, str]]:
    return [(job.lang, job.text, text) for job, text in zip(files.jobs, run.last, strict=True)]


def _measure(lang: str) -> str:
    return f"{lang} ({'CER' if lang in WITHOUT_SPACES else 'WER'})"


if __name__ == "__main__":
    main()
