"""Raising quiet recordings to a working level, as the audio arrives.

The level is that of the speech, after ITU-T P.56 (active speech level): the mean power of the frames in which somebody
talks. A frame counts as speech if it stands out from the noise around it and its level varies as syllables do. Steady
noise, hum, sustained music and silence never count, however loud or quiet, so they are never raised on their own. The
loudest level is held through pauses and falls while quieter speech continues, so that somebody who talks more quietly
than the speaker before is raised as well, gradually.

Every rule is relative to the recording itself, so the result does not depend on how the recording was scaled. The
result depends on the audio alone, so decoding a recording again gives the same; ``HELD_SECONDS`` of it are held at a
time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.domain.audio.spans import SAMPLE_RATE
from pipeline.domain.audio.speech import FRAME_SAMPLES, Signal

Decibels = npt.NDArray[np.float64]

TARGET_DB = -20.0
"""Level to which quieter speech is raised, in dB of full scale."""

MAX_GAIN_DB = 50.0
"""Largest gain; speech that would need more lies in the rounding noise of 16 bits."""

MAX_PEAK = 0.98
"""Highest amplitude of a raised sample."""

HOP_SAMPLES = 16_384
"""Samples with one gain, 1.02 s; the gain changes linearly from one hop to the next."""

PIECE_SAMPLES = 128
"""Samples that share one limit of the gain, 8 ms."""

FLOOR_HOPS = 5
"""Hops on either side of a hop in which the noise is measured."""

SPEECH_HOPS = 5
"""Hops after a hop in which louder speech is taken into account."""

NEIGHBOURS = 2
"""Hops on either side of a hop that influence its gain, by transition or because of their peaks."""

HELD_SECONDS = (FLOOR_HOPS + SPEECH_HOPS + NEIGHBOURS + 1) * HOP_SAMPLES / SAMPLE_RATE
"""Seconds of audio that are held at most until their gain is final: 13.3."""

FLOOR_PERCENTILE = 10
"""Percentile of the levels of the surrounding frames that is taken for the noise."""

RUMBLE_SAMPLES = 161
"""Length of the moving average that removes sound below speech, 10 ms: hum, rumble and constant offsets."""

CONTEXT_SAMPLES = 2 * (RUMBLE_SAMPLES - 1) + 1
"""Samples before a hop that are needed to measure it."""

SPEECH_OVER_FLOOR_DB = 8.0
"""Level above the noise from which a frame may be speech; the frames of steady noise differ by less than 2 dB."""

SWELL_DB = 6.0
"""Least range of the frames' levels in a hop with speech, between their 10th and 90th percentile."""

RANGE_DB = 60.0
"""Level below the loudest surrounding frame from which a frame is silence and does not count as noise."""

MIN_SPEECH_FRAMES = 4
"""Least number of speech frames in a hop, 0.1 s; fewer are a click."""

FALL_DB_PER_S = 2.0
"""Fall of the level for each second of quieter speech."""

MAX_FALL_DB = 30.0
"""Largest fall of the level below the loudest speech: quieter speech comes from another room."""

RISE_DB_PER_HOP = 10.0
"""Rise of the level before louder speech begins."""

LIMIT_DB_PER_PIECE = 1.0
"""Slope of the limit of the gain before and after a peak."""

_SILENCE = 1e-20
_PRE_EMPHASIS = 0.97


@dataclass(frozen=True, slots=True)
class Hop:
    """A range of audio with one gain.

    Attributes:
        audio: at most ``HOP_SAMPLES`` samples.
        offset: constant offset, which is not raised; 0 if it is no larger than that of any sound.
        powers: mean square of each frame, without the frequencies below speech.
        bright: mean square of each frame in dB, with pre-emphasis: hum and rumble count for little.
        headroom_db: largest possible gain of each piece.
    """

    audio: Signal
    offset: float
    powers: npt.NDArray[np.float64]
    bright: Decibels
    headroom_db: Decibels

    @classmethod
    def of(cls, audio: Signal, before: Signal) -> Hop:
        """Measure a range of audio; ``before`` holds the last ``CONTEXT_SAMPLES`` samples before it."""
        wide = audio.astype(np.float64)
        voice = _without_rumble(_without_rumble(np.concatenate([before, wide])))
        offset = _offset(wide, voice)
        peaks = np.abs(_rows(wide - offset, PIECE_SAMPLES)).max(axis=1)
        room = max(MAX_PEAK - abs(offset), _SILENCE)
        return cls(
            audio,
            offset,
            _mean_squares(voice[1:]),
            10 * np.log10(_mean_squares(voice[1:] - _PRE_EMPHASIS * voice[:-1]) + _SILENCE),
            np.maximum(0.0, 20 * np.log10(room / np.maximum(peaks, _SILENCE))),
        )


def speech_level(hop: Hop, around: Decibels) -> tuple[float, float] | None:
    """Return the level of a hop's speech, in dB of full scale, and its length in seconds, or ``None`` without speech.

    Args:
        hop: the hop to measure.
        around: the ``bright`` frames of the hop and of those on either side.
    """
    audible = around[around > around.max() - RANGE_DB]
    loud = hop.bright > np.percentile(audible, FLOOR_PERCENTILE) + SPEECH_OVER_FLOOR_DB
    low, high = np.percentile(hop.bright, (FLOOR_PERCENTILE, 100 - FLOOR_PERCENTILE))
    if loud.sum() < MIN_SPEECH_FRAMES or high - low < SWELL_DB:
        return None
    power = float(hop.powers[loud].mean())
    return 10 * float(np.log10(power + _SILENCE)), int(loud.sum()) * FRAME_SAMPLES / SAMPLE_RATE


class LevelControl:
    """A control that raises one recording to the working level; louder speech stays as it is, sample by sample."""

    def __init__(self) -> None:
        self._rest: Signal = np.empty(0, np.float32)
        self._before: Signal | None = None
        self._hops: dict[int, Hop] = {}  # by number, as in the next two, each of which lags behind the one before
        self._levels: dict[int, float | None] = {}
        self._gains: dict[int, float] = {}
        self._measured = self._levelled = self._gained = self._given = 0  # number of hops so far
        self._level: float | None = None
        self._loudest = -np.inf

    def feed(self, audio: Signal) -> Signal:
        """Add the next samples; return those whose gain is final."""
        self._rest = np.concatenate([self._rest, audio])
        while len(self._rest) >= HOP_SAMPLES:
            self._measure(self._rest[:HOP_SAMPLES])
            self._rest = self._rest[HOP_SAMPLES:]
        return self._advance(FLOOR_HOPS, SPEECH_HOPS, NEIGHBOURS)

    def finish(self) -> Signal:
        """Return the remaining samples."""
        if len(self._rest):
            self._measure(self._rest)
            self._rest = self._rest[:0]
        return self._advance(0, 0, 0)

    def _measure(self, audio: Signal) -> None:
        before = np.repeat(audio[:1], CONTEXT_SAMPLES) if self._before is None else self._before
        self._hops[self._measured] = Hop.of(audio, before)
        self._before = np.concatenate([before, audio])[-CONTEXT_SAMPLES:]
        self._measured += 1

    def _advance(self, floor_hops: int, speech_hops: int, neighbours: int) -> Signal:
        """Process every hop as far as possible.

        The arguments say by how many hops each step lags behind the one before.
        """
        while self._levelled < self._measured - floor_hops:
            self._levels[self._levelled] = self._next_level(self._levelled)
            self._levelled += 1
        while self._gained < self._levelled - speech_hops:
            self._gains[self._gained] = self._gain(self._gained)
            self._gained += 1
        raised = []
        while self._given < self._gained - neighbours:
            raised.append(self._raise(self._given))
            self._forget(self._given)
            self._given += 1
        return np.concatenate(raised) if raised else np.empty(0, np.float32)

    def _next_level(self, number: int) -> float | None:
        """Return the level at a hop: the loudest speech so far, less the fall during quieter speech."""
        near = range(number - FLOOR_HOPS, number + FLOOR_HOPS + 1)
        around = np.concatenate([self._hops[other].bright for other in near if other in self._hops])
        speech = speech_level(self._hops[number], around)
        if speech is not None:
            level, seconds = speech
            self._loudest = max(self._loudest, level)
            held = -np.inf if self._level is None else self._level - FALL_DB_PER_S * seconds
            self._level = max(level, held, self._loudest - MAX_FALL_DB)
        return self._level

    def _gain(self, number: int) -> float:
        """Return the gain of a hop in dB, with regard to the speech that follows."""
        ahead = [self._levels.get(number + distance) for distance in range(SPEECH_HOPS + 1)]
        rise = 0.0 if ahead[0] is None else RISE_DB_PER_HOP
        levels = [level - rise * distance for distance, level in enumerate(ahead) if level is not None]
        return min(MAX_GAIN_DB, max(0.0, TARGET_DB - max(levels))) if levels else 0.0

    def _raise(self, number: int) -> Signal:
        hop = self._hops[number]
        near = [other for other in (number - 1, number, number + 1) if other in self._gains]
        wanted = np.concatenate([self._passing_gain(other) for other in near])
        headroom = np.concatenate([self._hops[other].headroom_db for other in near])
        limited = _limit(wanted, headroom)
        first = sum(len(self._hops[other].headroom_db) for other in near if other < number)
        at_edges = _at_edges(limited)[first : first + len(hop.headroom_db) + 1]
        if not at_edges.any():
            return hop.audio
        edges = np.arange(len(at_edges)) * PIECE_SAMPLES
        gains = np.interp(np.arange(len(hop.audio)), edges, 10 ** (at_edges / 20))
        raised = hop.audio + (gains - 1) * (hop.audio - self._passing_offset(number))
        bounded: Signal = np.clip(raised, np.minimum(hop.audio, -MAX_PEAK), np.maximum(hop.audio, MAX_PEAK)).astype(
            np.float32
        )
        return bounded

    def _passing_offset(self, number: int) -> npt.NDArray[np.float64]:
        """Return the constant offset at each sample of a hop, with a linear transition to the next hop."""
        own = self._hops[number]
        begin, end = (
            (own.offset + self._hops[other].offset) / 2 if other in self._hops else own.offset
            for other in (number - 1, number + 1)
        )
        return np.linspace(begin, end, len(own.audio))

    def _passing_gain(self, number: int) -> Decibels:
        """Return the gain of each piece of a hop before any limit, with a linear transition to the next hop."""
        own = self._gains[number]
        begin, end = (min(own, self._gains.get(other, own)) for other in (number - 1, number + 1))
        pieces = len(self._hops[number].headroom_db)
        return begin + (end - begin) * (np.arange(pieces) + 0.5) / pieces

    def _forget(self, number: int) -> None:
        """Drop the hops, levels and gains that no later hop needs."""
        self._hops.pop(number - FLOOR_HOPS, None)
        self._levels.pop(number, None)
        self._gains.pop(number - NEIGHBOURS, None)


def _limit(wanted: Decibels, headroom: Decibels) -> Decibels:
    """Return the gains of pieces, lowered where they would exceed the headroom and, in a slope, around it."""
    excess = np.maximum(0.0, wanted - headroom)
    if not excess.any():
        return wanted
    slope = LIMIT_DB_PER_PIECE * np.arange(len(excess))
    after = np.maximum.accumulate(excess + slope) - slope
    before = np.maximum.accumulate((excess - slope)[::-1])[::-1] + slope
    limited: Decibels = np.maximum(0.0, wanted - np.maximum(after, before))
    return limited


def _at_edges(pieces: Decibels) -> Decibels:
    """Return the gain at the start of each piece and at the end of the last: the lower one of both sides."""
    padded = np.concatenate([pieces[:1], pieces, pieces[-1:]])
    edges: Decibels = np.minimum(padded[:-1], padded[1:])
    return edges


def _offset(audio: npt.NDArray[np.float64], voice: npt.NDArray[np.float64]) -> float:
    """Return the part of the mean that the sound itself does not account for."""
    mean, usual = float(audio.mean()), float(voice.std()) / 4
    return mean - min(max(mean, -usual), usual)


def _without_rumble(audio: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the audio less its moving average, 80 samples shorter at each end: -9 dB at 50 Hz, 0 dB at 100 Hz."""
    sums = np.cumsum(np.concatenate([[0.0], audio]))
    means = (sums[RUMBLE_SAMPLES:] - sums[:-RUMBLE_SAMPLES]) / RUMBLE_SAMPLES
    reach = RUMBLE_SAMPLES // 2
    rest: npt.NDArray[np.float64] = audio[reach : len(audio) - reach] - means
    return rest


def _mean_squares(audio: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean square of each frame; the last frame may be incomplete."""
    sums = np.square(_rows(audio, FRAME_SAMPLES)).sum(axis=1)
    lengths = np.minimum(FRAME_SAMPLES, len(audio) - np.arange(len(sums)) * FRAME_SAMPLES)
    means: npt.NDArray[np.float64] = sums / lengths
    return means


def _rows(audio: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Return the samples in rows, the last one padded with zeros."""
    return np.pad(audio, (0, -len(audio) % size)).reshape(-1, size)
