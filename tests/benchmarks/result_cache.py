"""Results of benchmarks kept in a file, so that a run can be cut short, and rivals need not run after each change."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Key(NamedTuple):
    """The key of a result.

    Attributes:
        contender: what transcribed.
        recording: name of the recording.
        sha256: of the recording's content.
        model: name and compute type.
        options: language, and whether word times were requested.
    """

    contender: str
    recording: str
    sha256: str
    model: str
    options: str


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word and its times, in seconds."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class TimedText:
    """A segment and its times, in seconds; ``words`` is empty unless word times were requested."""

    start_s: float
    end_s: float
    text: str
    words: tuple[TimedWord, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """A contender's transcript of a recording, and the seconds since its previous result."""

    segments: tuple[TimedText, ...]
    seconds: float

    @property
    def text(self) -> str:
        """All of its text."""
        return " ".join(segment.text.strip() for segment in self.segments)


class ResultCache:
    """Results by key, written to a file of JSON lines as they come.

    Args:
        path: the file, made when needed; ``None`` keeps results in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._results: dict[Key, Result] = {}
        if path is not None and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            self._results = dict(_parsed(line) for line in lines if line.endswith("\n"))  # not one cut short
            self._rewrite()

    def get(self, key: Key) -> Result | None:
        """Return a result, or ``None`` if there is none."""
        return self._results.get(key)

    def put(self, key: Key, result: Result) -> None:
        """Keep a result; it is in the file when this returns."""
        self._results[key] = result
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(key, result))

    def forget(self, keys: Collection[Key]) -> None:
        """Drop results, so that a run that was cut short never mixes old and new ones."""
        self._results = {key: result for key, result in self._results.items() if key not in keys}
        if self._path is not None:
            self._rewrite()

    def _rewrite(self) -> None:
        if self._path is None:
            return
        partial = self._path.with_name(f"{self._path.name}.partial")
        partial.write_text("".join(_line(*entry) for entry in self._results.items()), encoding="utf-8")
        partial.replace(self._path)


def _line(key: Key, result: Result) -> str:
    return json.dumps({**key._asdict(), **asdict(result)}, ensure_ascii=False) + "\n"


def _parsed(line: str) -> tuple[Key, Result]:
    record: dict[str, Any] = json.loads(line)
    segments = tuple(_segment(segment) for segment in record["segments"])
    return Key(*(record[name] for name in Key._fields)), Result(segments, record["seconds"])


def _segment(segment: dict[str, Any]) -> TimedText:
    return TimedText(**segment | {"words": tuple(TimedWord(**word) for word in segment["words"])})
