"""Ways to transcribe recordings in this process: faster-whisper's own, and the pipeline with and without its parts.

Results are kept in a ``ResultCache`` as they come.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ctranslate2

from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from tests.benchmarks.result_cache import Key, Result, ResultCache, TimedText, TimedWord
from tests.benchmarks.rivals import load_rival
from tests.support.in_process import InProcess

OURS = {
    "ours-short": {"short_windows": True},
    "ours-full": {"short_windows": False},
    "ours-short-nogate": {"short_windows": True, "quality_gate": False},
    "ours-full-nogate": {"short_windows": False, "quality_gate": False},
}
"""The pipeline's arguments by the contender's name."""

NAMES = ("plain", "batched", *OURS)
"""Every contender."""

PROGRESS_S = 30.0
"""Seconds between two lines of progress."""

Segments = Iterable[Any]
"""Segments of faster-whisper or of the pipeline, which have the same names."""


@dataclass(frozen=True, slots=True)
class TranscriptionJob:
    """A recording to transcribe; ``language`` ``None`` has it detected."""

    name: str
    path: Path
    language: str | None


@dataclass(frozen=True, slots=True)
class Model:
    """The model that the contenders run, with its settings."""

    name: str
    compute_type: str
    threads: int
    batch_size: int
    words: bool = False

    def key(self, contender: str, request: TranscriptionJob) -> Key:
        """Return what a contender's result for a recording is kept under."""
        sized = f"{contender}/{self.batch_size}" if contender in OURS else contender
        sha256 = hashlib.sha256(request.path.read_bytes()).hexdigest()
        options = f"{request.language or 'detected'}{' words' if self.words else ''}"
        return Key(sized, request.name, sha256, f"{self.name} {self.compute_type}", options)


@dataclass(slots=True)
class Progress:
    """A contender on its way through the recordings: its results are kept as they come."""

    contender: str
    keys: Sequence[Key]
    cache: ResultCache
    finished: int = 0
    began: float = field(default_factory=time.perf_counter)
    last: float = field(default_factory=time.perf_counter)
    printed: float = field(default_factory=time.perf_counter)

    def keep(self, index: int, segments: Segments) -> None:
        """Keep one result, with the seconds since the one before."""
        timed = tuple(_timed(segment) for segment in segments)  # which makes faster-whisper decode
        now = time.perf_counter()
        self.cache.put(self.keys[index], Result(timed, now - self.last))
        self.finished, self.last = self.finished + 1, now
        if now - self.printed > PROGRESS_S or self.finished == len(self.keys):
            self.printed = now
            print(f"{self.contender}: {self.finished} of {len(self.keys)}, {now - self.began:.0f} s", flush=True)


def add_arguments(parser: argparse.ArgumentParser, contenders: str) -> None:
    """Add what chooses contenders, their model, and where results are kept."""
    parser.add_argument("--contenders", default=contenders, help=f"of {', '.join(NAMES)}")
    parser.add_argument("--model", default="base")
    parser.add_argument("--compute-type", default="int8")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch-size", type=int, default=8, help="of the pipeline")
    parser.add_argument("--cache", type=Path, help="file of JSON lines in which results are kept, and looked up")
    parser.add_argument("--rerun", default="", help="contenders whose results in the cache are dropped first")


def model(arguments: argparse.Namespace) -> Model:
    """Return the model that the command line names."""
    words = getattr(arguments, "words", False)
    return Model(arguments.model, arguments.compute_type, arguments.threads, arguments.batch_size, words)


def names(listed: str) -> list[str]:
    """Return the contenders in a comma list. Raises ``SystemExit`` where one is unknown."""
    chosen = [name for name in listed.split(",") if name]
    if unknown := set(chosen) - set(NAMES):
        raise SystemExit(f"There is no contender {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}.")
    return chosen


def results(arguments: argparse.Namespace, requests: Sequence[TranscriptionJob]) -> dict[str, list[Result]]:
    """Return every contender's results, in order of the requests; those in the cache are not made again."""
    cache, chosen = ResultCache(arguments.cache), model(arguments)
    keys = {name: [chosen.key(name, request) for request in requests] for name in names(arguments.contenders)}
    cache.forget({key for name in names(arguments.rerun) for key in keys.get(name, ())})
    for name, wanted in keys.items():
        _run(
            name, chosen, [request for key, request in zip(wanted, requests, strict=True) if not cache.get(key)], cache
        )
    return {name: [result for key in wanted if (result := cache.get(key))] for name, wanted in keys.items()}


def _run(name: str, chosen: Model, requests: Sequence[TranscriptionJob], cache: ResultCache) -> None:
    if not requests:
        return
    ctranslate2.set_random_seed(0)
    run = partial(_ours, name) if name in OURS else partial(_rival, name)
    keys = [chosen.key(name, request) for request in requests]
    run(chosen, requests, lambda: Progress(name, keys, cache))


def _ours(name: str, chosen: Model, requests: Sequence[TranscriptionJob], start: Callable[[], Progress]) -> None:
    pipeline = InProcess(
        **OURS[name],
        batch_size=chosen.batch_size,
        model=chosen.name,
        compute_type=chosen.compute_type,
        threads=chosen.threads,
    )
    with closing(pipeline):
        progress = start()
        pipeline.transcribe_all(
            [request.path for request in requests],
            TranscriptionOptions(word_timestamps=chosen.words),
            [request.language for request in requests],
            lambda index, transcript: progress.keep(index, transcript.segments),
        )


def _rival(name: str, chosen: Model, requests: Sequence[TranscriptionJob], start: Callable[[], Progress]) -> None:
    rival = load_rival(chosen.name, chosen.compute_type, chosen.threads)
    transcribe = rival.plain_segments if name == "plain" else rival.batched_segments
    progress = start()
    for index, request in enumerate(requests):
        progress.keep(index, transcribe(request.path, request.language, words=chosen.words))


def _timed(segment: Any) -> TimedText:
    words = tuple(TimedWord(float(word.start), float(word.end), word.word) for word in segment.words or ())
    return TimedText(float(segment.start), float(segment.end), segment.text, words)
