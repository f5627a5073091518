"""The recordings of the placement benchmark: speech with pauses and music between; the same every time."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.domain.audio.spans import SAMPLE_RATE
from tests.benchmarks.robustness_set import write
from tests.support import speech
from tests.support.speech import Audio

Wave = npt.NDArray[np.float64]

SEED = 200
JOINS = 200
SAMPLES = (2, 12)
"""Fewest and most samples of a join."""

PAUSE_S = (0.3, 20.0)
"""Shortest and longest pause; their logarithms are evenly distributed."""

MUSIC_SHARE = 0.3
"""Share of the pauses with music, of those that are long enough for it."""

SHORTEST_MUSIC_S = 1.0

MUSIC_RMS = 0.1
"""20 dB below full scale."""

HARMONICS = 6
FADE_S = 0.05
CHORDS = ((0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14))
"""Semitones above the key: tonic, its relative minor, subdominant, dominant."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence or music before a sample; ``music_seed`` is ``None`` for silence."""

    duration_s: float
    music_seed: int | None = None

    def sound(self) -> Audio:
        samples = round(self.duration_s * SAMPLE_RATE)
        return np.zeros(samples, np.float32) if self.music_seed is None else music(samples, self.music_seed)


@dataclass(frozen=True, slots=True)
class Join:
    """Samples of one language, a pause before each, and one after the last."""

    number: int
    samples: tuple[speech.Sample, ...]
    pauses: tuple[Pause, ...]

    @property
    def lang(self) -> str:
        return self.samples[0].lang

    @property
    def name(self) -> str:
        return f"{self.number:03d}-{self.lang}"

    def joined(self) -> speech.Joined:
        """Return its sound, and the placements of its samples."""
        *before, after = self.pauses
        spoken = speech.join(self.samples, [pause.duration_s for pause in before])
        audio = np.concatenate([spoken.audio, np.zeros(round(after.duration_s * SAMPLE_RATE), np.float32)])
        for pause, start in zip(self.pauses, self._pause_starts(), strict=True):
            sound = pause.sound()
            audio[start : start + len(sound)] += sound
        return speech.Joined(audio, spoken.placements)

    def _pause_starts(self) -> list[int]:
        """Return where each pause begins, in samples."""
        lengths = [
            round(pause.duration_s * SAMPLE_RATE) + len(speech.load(sample.path))
            for pause, sample in zip(self.pauses, self.samples, strict=False)
        ]
        return list(accumulate(lengths, initial=0))

    def written(self, folder: Path) -> WrittenJoin:
        """Write it into a folder."""
        path, joined = folder / f"{self.name}.wav", self.joined()
        write(joined.audio, "clean", path)
        return WrittenJoin(self.name, self.lang, path, joined.placements, joined.duration_s)


@dataclass(frozen=True, slots=True)
class WrittenJoin:
    """A join in a file, and the placements of its samples."""

    name: str
    lang: str
    path: Path
    placements: tuple[speech.Placement, ...]
    duration_s: float


def placement_set() -> list[Join]:
    """Return the joins, each language as often as any other."""
    source = random.Random(SEED)
    languages = sorted({sample.lang for sample in speech.corpus()})
    return [_join(number, languages[number % len(languages)], source) for number in range(JOINS)]


def _join(number: int, lang: str, source: random.Random) -> Join:
    samples = tuple(source.choices(speech.of_language(lang), k=source.randint(*SAMPLES)))
    return Join(number, samples, tuple(_pause(source) for _ in range(len(samples) + 1)))


def _pause(source: random.Random) -> Pause:
    duration_s = round(math.exp(source.uniform(*map(math.log, PAUSE_S))), 2)
    seed, has_music = source.getrandbits(32), source.random() < MUSIC_SHARE
    return Pause(duration_s, seed if has_music and duration_s >= SHORTEST_MUSIC_S else None)


# --- music ------------------------------------------------------------------------------------------------------------


def music(samples: int, seed: int) -> Audio:
    """Return chords of decaying harmonics, one a beat, over a drum; 20 dB below full scale."""
    source = np.random.default_rng([SEED, seed])
    beat = round(SAMPLE_RATE * 60 / source.uniform(80, 140))
    key_hz = 110.0 * 2 ** (source.integers(12) / 12)
    beats = [_beat(number, beat, key_hz, source) for number in range(-(-samples // beat))]
    played = np.concatenate(beats)[:samples] * _fade(samples)
    return (played * MUSIC_RMS / np.sqrt(np.mean(played**2))).astype(np.float32)


def _beat(number: int, samples: int, key_hz: float, source: np.random.Generator) -> Wave:
    """Return a chord, which changes every four beats, with a drum: low on even beats, noise on odd ones."""
    times = np.arange(samples) / SAMPLE_RATE
    attack = np.minimum(times / 0.01, 1.0)
    notes = [_note(key_hz * 2 ** (step / 12), times) for step in CHORDS[number // 4 % len(CHORDS)]]
    chord = sum(notes, start=np.zeros(samples))
    low = np.sin(2 * np.pi * 60 * times) * np.exp(-times / 0.08)
    noise = source.standard_normal(samples) * np.exp(-times / 0.03)
    return attack * (chord * np.exp(-times / 0.4) + (1.5 * noise if number % 2 else 3.0 * low))


def _note(hertz: float, times: Wave) -> Wave:
    partials = [np.sin(2 * np.pi * hertz * harmonic * times) / harmonic for harmonic in range(1, HARMONICS + 1)]
    return np.sum(partials, axis=0)


def _fade(samples: int) -> Audio:
    distance = np.minimum(np.arange(samples), np.arange(samples)[::-1])
    return np.minimum(distance / (FADE_S * SAMPLE_RATE), 1.0)
