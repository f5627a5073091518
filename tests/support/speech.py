"""Recordings with reference text, and longer ones joined from them, for tests and benchmarks; the same every time.

The speech is pytest-audioeval's: 27 clips of 1 to 5 s in nine languages, each with the text that is spoken.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt

from pipeline.domain.audio.spans import SAMPLE_RATE
from tests.support import recordings

Audio = npt.NDArray[np.float32]

AUDIBLE = 0.01
"""Amplitude (of full scale) from which a sample counts as speech; the clips begin and end with digital near-silence."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One recording of one person saying ``text`` in ``lang`` (ISO 639-1)."""

    lang: str
    name: str
    path: Path
    text: str
    duration_s: float


class Placement(NamedTuple):
    """The times of a sample in a joined recording, from its first to its last audible moment, in seconds."""

    start_s: float
    end_s: float
    text: str
    lang: str


class Joined(NamedTuple):
    """Samples laid end to end with silence between: mono float32 in [-1, 1], and where each is heard."""

    audio: Audio
    placements: tuple[Placement, ...]

    @property
    def duration_s(self) -> float:
        return len(self.audio) / SAMPLE_RATE

    @property
    def text(self) -> str:
        return " ".join(placement.text for placement in self.placements)


def corpus() -> tuple[Sample, ...]:
    """Return every sample, in order of language and name."""
    folder = Path(str(files("pytest_audioeval").joinpath("samples/audio")))
    return tuple(_sample(path) for path in sorted(folder.glob("*/*.wav")))


def sample(lang: str, name: str) -> Sample:
    """Return the sample of a name in a language."""
    return next(one for one in of_language(lang) if one.name == name)


def of_language(lang: str) -> tuple[Sample, ...]:
    """Return the samples in one language."""
    found = tuple(sample for sample in corpus() if sample.lang == lang)
    if not found:
        raise ValueError(f"There is no sample in {lang}; there are {sorted({sample.lang for sample in corpus()})}.")
    return found


@cache
def load(path: Path) -> Audio:
    """Load a recording as 16 kHz mono float32."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    with av.open(str(path)) as container:
        frames = itertools.chain(container.decode(audio=0), [None])
        parts = [part.to_ndarray()[0] for frame in frames for part in resampler.resample(frame)]
    return np.concatenate(parts)


def join(samples: Sequence[Sample], pauses: Sequence[float]) -> Joined:
    """Lay samples end to end at 16 kHz; ``pauses[i]`` seconds of silence come before ``samples[i]``."""
    parts: list[Audio] = []
    placements: list[Placement] = []
    position = 0
    for sample, pause_s in zip(samples, pauses, strict=True):
        audio = load(sample.path)
        silence = np.zeros(round(pause_s * SAMPLE_RATE), dtype=np.float32)
        position += len(silence)
        first, last = _audible(audio)
        start_s, end_s = (position + first) / SAMPLE_RATE, (position + last + 1) / SAMPLE_RATE
        placements.append(Placement(start_s, end_s, sample.text, sample.lang))
        parts += [silence, audio]
        position += len(audio)
    return Joined(np.concatenate(parts), tuple(placements))


def recording(
    samples: Sequence[Sample], duration_s: float, seed: int, pause_s: tuple[float, float] = (0.5, 3.0)
) -> Joined:
    """Join at most ``duration_s`` seconds: shuffled rounds of the samples, each after a pause of random length.

    Always holds at least one sample, however short ``duration_s`` is.
    """
    if not samples:
        raise ValueError("A recording needs at least one sample.")
    source = random.Random(seed)
    chosen: list[Sample] = []
    pauses: list[float] = []
    total_s = 0.0
    for sample in _rounds(samples, source):
        pause = round(source.uniform(*pause_s), 2) if chosen else 0.0
        if chosen and total_s + pause + sample.duration_s > duration_s:
            break
        chosen.append(sample)
        pauses.append(pause)
        total_s += pause + sample.duration_s
    return join(chosen, pauses)


def hour(samples: Sequence[Sample], seed: int = 1) -> Joined:
    """Join an hour of speech and pauses."""
    return recording(samples, 3600.0, seed)


FORMATS = ("wav", "flac", "mp3", "m4a", "mp4", "ogg", "webm")
"""Suffixes of what people upload most."""


def encode(audio: Audio, path: Path) -> Path:
    """Write a recording in the format of the path's suffix, mp4 with a picture, and return the path."""
    samples = np.rint(np.clip(audio, -1.0, 1.0) * 32_767).astype(np.int16)
    suffix = path.suffix.removeprefix(".")
    path.write_bytes(recordings.encode(samples, suffix, picture=suffix == "mp4", fflags="+bitexact"))
    return path


def _sample(path: Path) -> Sample:
    text = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
    return Sample(path.parent.name, path.stem, path, text, len(load(path)) / SAMPLE_RATE)


def _audible(audio: Audio) -> tuple[int, int]:
    loud = np.flatnonzero(np.abs(audio) > AUDIBLE)
    return int(loud[0]), int(loud[-1])


def _rounds(samples: Sequence[Sample], source: random.Random) -> Iterator[Sample]:
    while True:
        yield from source.sample(samples, len(samples))
