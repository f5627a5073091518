"""The recordings of the robustness benchmark: speech at many gains, in many conditions; the same every time."""

from __future__ import annotations

import random
import wave
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import av
import numpy as np

from pipeline.domain.audio.spans import SAMPLE_RATE
from tests.support import speech
from tests.support.speech import Audio

SEED = 648
GAINS_DB = tuple(float(gain) for gain in np.linspace(-18.0, 6.0, 12))
"""Gains of the set, in even steps."""

EDGES_S = (0.0, 0.5, 2.0)
"""Silence before and after the speech."""

PAUSES_S = (0.0, 0.5, 1.0, 3.0)
"""Silence between joined samples."""

CONDITIONS = (
    *("clean", "left", "clean", "narrow", "clean", "pink 20 dB", "pink 10 dB", "clean", "left", "clean"),
    *("narrow", "pink 20 dB", "clean", "pink 10 dB", "clean", "left", "narrow", "clean", "pink 20 dB", "pink 10 dB"),
)
"""Conditions in the order in which they are dealt out: clean 8 times in 20, the others 3 times, evenly spread."""

KINDS = ("gain", "condition", "edge", "kind", "language", "base")
"""Kinds of slices."""

NARROW_RATE = 8_000
"""Samples a second of a recording whose band is limited, as a telephone's is."""


@dataclass(frozen=True, slots=True)
class Base:
    """Samples of one language, one after another; ``pauses_s`` come between them."""

    samples: tuple[speech.Sample, ...]
    pauses_s: tuple[float, ...] = ()

    @property
    def lang(self) -> str:
        return self.samples[0].lang

    @property
    def name(self) -> str:
        pauses = [
            f"+{pause_s:g}s+{sample.name}" for pause_s, sample in zip(self.pauses_s, self.samples[1:], strict=True)
        ]
        return "".join([f"{self.lang}-{self.samples[0].name}", *pauses])

    @property
    def text(self) -> str:
        return " ".join(sample.text for sample in self.samples)

    def joined(self) -> speech.Joined:
        return speech.join(self.samples, (0.0, *self.pauses_s))


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to record a base.

    Attributes:
        gain: factor of the amplitude; above 1, what exceeds full scale is clipped.
        condition: one of ``CONDITIONS``.
        edge_s: silence before and after the speech, in seconds.
        label: the gain as it is called.
    """

    gain: float
    condition: str
    edge_s: float
    label: str


@dataclass(frozen=True, slots=True)
class Recording:
    """One base in one variant; ``number`` seeds its noise."""

    base: Base
    variant: Variant
    number: int
    path: Path = field(default=Path())

    @property
    def name(self) -> str:
        return f"{self.base.name}@{self.variant.label},{self.variant.condition},{self.variant.edge_s:g}s"

    @property
    def slices(self) -> Mapping[str, str]:
        """The slices it belongs to: the value of each kind."""
        values = (
            self.variant.label,
            self.variant.condition,
            f"{self.variant.edge_s:g} s",
            "join" if self.base.pauses_s else "sample",
            self.base.lang,
            self.base.name,
        )
        return dict(zip(KINDS, values, strict=True))

    def written(self, folder: Path) -> Recording:
        """Return it with its file, which is written into the folder."""
        path = folder / f"{self.number:04d}.wav"
        write(record(self.base.joined(), self.variant, self.number), self.variant.condition, path)
        return replace(self, path=path)


# --- which recordings -------------------------------------------------------------------------------------------------


def robustness_set() -> list[Recording]:
    """Return every base at every gain, shuffled; conditions and edges are dealt out evenly over bases and over gains.

    Each base goes 13 steps along the conditions, each gain one step: 13 and 20 have no factor in common, so that all
    bases at one gain, and all gains of one base, get each condition in its proportion. So it is with the three edges.
    """
    source = random.Random(SEED)
    chosen = bases()
    rows = source.sample(range(len(chosen)), len(chosen))
    columns = source.sample(range(len(GAINS_DB)), len(GAINS_DB))
    numbers = count()
    recordings = [
        Recording(base, _variant(gain_db, row, column), next(numbers))
        for base, row in zip(chosen, rows, strict=True)
        for gain_db, column in zip(GAINS_DB, columns, strict=True)
    ]
    return source.sample(recordings, len(recordings))


def _variant(gain_db: float, row: int, column: int) -> Variant:
    condition = CONDITIONS[(13 * row + column) % len(CONDITIONS)]
    return Variant(10 ** (gain_db / 20), condition, EDGES_S[(row + column) % len(EDGES_S)], f"{gain_db:+.1f} dB")


def gains_set() -> list[Recording]:
    """Return English speech that was reported to lose words: left only, at gains from 0.30 to 0.63, and as it is."""
    samples = {sample.name: sample for sample in speech.of_language("en")}
    fox = samples["quick_brown_fox"]
    chosen = [Base((sample,)) for sample in (fox, samples["counting"], samples["hello_world"])]
    chosen += [Base((fox, fox), (0.0,)), Base((fox, fox, fox), (3.0, 3.0))]
    gains = [0.30 + 0.03 * step for step in range(12)]
    variants = [Variant(gain, "left", 0.0, f"×{gain:.2f}") for gain in gains] + [Variant(1.0, "clean", 0.0, "×1.00")]
    numbers = count()
    return [Recording(base, variant, next(numbers)) for base in chosen for variant in variants]


SETS = {"robustness": robustness_set, "gains": gains_set}
"""Functions that return the sets, by the name of the set."""


def bases() -> list[Base]:
    """Return the samples, and three joins of each language."""
    source = random.Random(SEED)
    samples = speech.corpus()
    joins = [join for lang in sorted({sample.lang for sample in samples}) for join in _joins(lang, source)]
    return [*(Base((sample,)) for sample in samples), *joins]


def _joins(lang: str, source: random.Random) -> list[Base]:
    """Return a sample said twice, two different ones, and three; in English one twice at once, and one three times."""
    samples = speech.of_language(lang)
    again, pair = source.choice(samples), source.sample(samples, 2)
    three = [source.choice(samples) for _ in range(3)]
    pauses = [source.choice(PAUSES_S) for _ in range(4)]
    drawn = [
        Base((again, again), (pauses[0],)),
        Base(tuple(pair), (pauses[1],)),
        Base(tuple(three), (pauses[2], pauses[3])),
    ]
    if lang != "en":
        return drawn
    fox = next(sample for sample in samples if sample.name == "quick_brown_fox")
    return [Base((fox, fox), (0.0,)), drawn[1], Base((fox, fox, fox), (3.0, 3.0))]


def selected(
    recordings: Iterable[Recording], *, every: int = 1, base_names: Sequence[str] = (), slices: Sequence[str] = ()
) -> list[Recording]:
    """Return each ``every``-th recording among those asked for.

    Args:
        recordings: to choose from.
        every: 1 for all.
        base_names: parts of the names of bases; empty for all.
        slices: ``kind=value`` as in ``Recording.slices``; several of one kind are alternatives.

    Raises:
        ValueError: there is no such kind.
    """
    wanted: dict[str, set[str]] = {}
    for kind, _, value in (one.partition("=") for one in slices):
        if kind not in KINDS:
            raise ValueError(f"There is no kind of slice {kind!r}; there are {', '.join(KINDS)}.")
        wanted.setdefault(kind, set()).add(value)
    chosen = [
        recording
        for recording in recordings
        if (not base_names or any(name in recording.base.name for name in base_names))
        and all(recording.slices[kind] in values for kind, values in wanted.items())
    ]
    return chosen[::every]


# --- their sound ------------------------------------------------------------------------------------------------------


def record(joined: speech.Joined, variant: Variant, seed: int) -> Audio:
    """Return the mono sound that a variant's recorder takes, before it is limited to full scale."""
    edge = np.zeros(round(variant.edge_s * SAMPLE_RATE), np.float32)
    audio = np.concatenate([edge, joined.audio, edge])
    if variant.condition.startswith("pink"):
        snr_db = float(variant.condition.split()[1])
        noise_rms = speech_rms(joined) / 10 ** (snr_db / 20)
        audio = audio + noise_rms * pink_noise(len(audio), seed)
    if variant.condition == "narrow":
        audio = resampled(audio, NARROW_RATE)
    return (audio * variant.gain).astype(np.float32)


def speech_rms(joined: speech.Joined) -> float:
    """Return the root mean square of the speech, without the pauses."""
    spans = [(round(one.start_s * SAMPLE_RATE), round(one.end_s * SAMPLE_RATE)) for one in joined.placements]
    spoken = np.concatenate([joined.audio[start:end] for start, end in spans])
    return float(np.sqrt(np.mean(spoken.astype(np.float64) ** 2)))


def pink_noise(samples: int, seed: int) -> Audio:
    """Return noise whose power falls by 3 dB an octave from 20 Hz on, with a root mean square of 1."""
    white = np.fft.rfft(np.random.default_rng([SEED, seed]).standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    shaped = np.where(frequencies < 20.0, 0.0, white / np.sqrt(np.maximum(frequencies, 20.0)))
    noise = np.fft.irfft(shaped, samples)
    return (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)


def resampled(audio: Audio, rate: int) -> Audio:
    """Return 16 kHz mono sound at another rate."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio[None]), "flt", "mono")
    frame.sample_rate = SAMPLE_RATE
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    parts = [part.to_ndarray()[0] for given in (frame, None) for part in resampler.resample(given)]
    return np.concatenate(parts)


def write(audio: Audio, condition: str, path: Path) -> None:
    """Write a 16-bit wav, clipped at full scale; for ``left`` with a silent right channel."""
    mono = np.rint(np.clip(audio, -1.0, 1.0) * 32_767).astype("<i2")
    channels = [mono, np.zeros_like(mono)] if condition == "left" else [mono]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(NARROW_RATE if condition == "narrow" else SAMPLE_RATE)
        file.writeframes(np.stack(channels, axis=1).tobytes())
