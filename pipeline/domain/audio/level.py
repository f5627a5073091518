"""Quiet recordings are raised to a working level, as the audio arrives.

The level is that of the speech, after ITU-T P.56 (active speech level): the mean power of the frames in which somebody
talks. A frame counts as speech where it stands out from the noise around it and the sound swells and fades as syllables
do; steady noise, hum, music held long and silence never count, however loud or quiet, so they are never raised by
themselves. The loudest level is held through pauses and falls while quieter speech goes on, so that somebody who talks
more quietly than the one before is raised as well, little by little.

Every rule is relative to the recording itself, so a recording gives the same whatever it was scaled by. Nothing but the
audio decides, so a recording that is decoded again gives the same; ``HELD_SECONDS`` of it are held at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.domain.audio.spans import SAMPLE_RATE
from pipeline.domain.audio.speech import FRAME_SAMPLES, Signal

Decibels = npt.NDArray[np.float64]

TARGET_DB = -20.0
"""Level of speech, in dB of full scale, to which quieter speech is raised."""

MAX_GAIN_DB = 50.0
"""Speech that would need more lies in the rounding noise of 16 bits."""

MAX_PEAK = 0.98
"""Highest amplitude that a raised sample may have."""

HOP_SAMPLES = 16_384
"""Samples for which one gain is found, 1.02 s; from one gain to the next the gain passes linearly."""

PIECE_SAMPLES = 128
"""Samples that share one limit of the gain, 8 ms."""

FLOOR_HOPS = 5
"""Hops on either side of a hop in which the noise is looked for."""

SPEECH_HOPS = 5
"""Hops after a hop in which louder speech is looked for."""

NEIGHBOURS = 2
"""Hops on either side of a hop whose gains its own passes over to, or whose peaks are near."""

HELD_SECONDS = (FLOOR_HOPS + SPEECH_HOPS + NEIGHBOURS + 1) * HOP_SAMPLES / SAMPLE_RATE
"""Audio that is held at most before its gain is settled, in seconds: 13.3."""

FLOOR_PERCENTILE = 10
"""The level of the noise among the levels of all frames around."""

RUMBLE_SAMPLES = 161
"""What is the same over 10 ms lies below speech: hum, rumble and constant offsets, which say nothing of its level."""

CONTEXT_SAMPLES = 2 * (RUMBLE_SAMPLES - 1) + 1
"""Samples before a hop that it takes to measure it."""

SPEECH_OVER_FLOOR_DB = 8.0
"""A frame so far above the noise is loud enough for speech; the frames of steady noise differ by less than 2 dB."""

SWELL_DB = 6.0
"""Range of the frames of a hop with speech, between their 10th and 90th percentile."""

RANGE_DB = 60.0
"""Frames so far below the loudest one around are not noise but silence, and say nothing of the noise."""

MIN_SPEECH_FRAMES = 4
"""Fewer frames in a hop, 0.1 s, are a click rather than speech."""

FALL_DB_PER_S = 2.0
"""How fast the level falls, for each second of quieter speech."""

MAX_FALL_DB = 30.0
"""How far below the loudest speech the level may fall: what is quieter is somebody in another room."""

RISE_DB_PER_HOP = 10.0
"""How fast the level rises before louder speech begins."""

LIMIT_DB_PER_PIECE = 1.0
"""How fast the limit of the gain passes in and goes again, around a peak."""

_SILENCE = 1e-20
_PRE_EMPHASIS = 0.97


@dataclass(frozen=True, slots=True)
class Hop:
    """A stretch of audio that is given one gain.

    Attributes:
        audio: at most ``HOP_SAMPLES`` samples.
        offset: constant offset, which is not raised; 0 where it is no more than any sound has.
        powers: mean square of each frame, without what lies below speech.
        bright: mean square of each frame in dB, with pre-emphasis: hum and rumble count for little.
        headroom_db: of each piece, how far it may be raised.
    """

    audio: Signal
    offset: float
    powers: npt.NDArray[np.float64]
    bright: Decibels
    headroom_db: Decibels

    @classmethod
    def of(cls, audio: Signal, before: Signal) -> Hop:
        """Measure a stretch of audio; ``before`` are the last ``CONTEXT_SAMPLES`` before it."""
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
    """Return the level of the speech in a hop, in dB of full scale, and its length in seconds, or ``None``.

    Args:
        hop: to be measured.
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
    """Raises one recording to the working level; what is there already stays as it is, sample by sample."""

    def __init__(self) -> None:
        self._rest: Signal = np.empty(0, np.float32)
        self._before: Signal | None = None
        self._hops: dict[int, Hop] = {}  # by number; in the following dicts too, each behind the one before
        self._levels: dict[int, float | None] = {}
        self._gains: dict[int, float] = {}
        self._measured = self._levelled = self._gained = self._given = 0  # how many hops so far
        self._level: float | None = None
        self._loudest = -np.inf

    def feed(self, audio: Signal) -> Signal:
        """Take the next samples; return those whose gain is settled."""
        self._rest = np.concatenate([self._rest, audio])
        while len(self._rest) >= HOP_SAMPLES:
            self._measure(self._rest[:HOP_SAMPLES])
            self._rest = self._rest[HOP_SAMPLES:]
        return self._advance(FLOOR_HOPS, SPEECH_HOPS, NEIGHBOURS)

    def finish(self) -> Signal:
        """Return the rest."""
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
        """Take every hop as far as it goes; the arguments are how many hops each step must be behind the one before."""
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
        """Return the level that is held at a hop: the loudest speech so far, less what quieter speech has taken off."""
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
        """Return the gain of a hop in dB, with an eye on the speech that follows."""
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
        """Return the constant offset at each sample of a hop: it passes from one hop to the next."""
        own = self._hops[number]
        begin, end = (
            (own.offset + self._hops[other].offset) / 2 if other in self._hops else own.offset
            for other in (number - 1, number + 1)
        )
        return np.linspace(begin, end, len(own.audio))

    def _passing_gain(self, number: int) -> Decibels:
        """Return the gain of each piece of a hop, before any limit: it passes from one hop to the next."""
        own = self._gains[number]
        begin, end = (min(own, self._gains.get(other, own)) for other in (number - 1, number + 1))
        pieces = len(self._hops[number].headroom_db)
        return begin + (end - begin) * (np.arange(pieces) + 0.5) / pieces

    def _forget(self, number: int) -> None:
        """Let go of what no later hop looks back to."""
        self._hops.pop(number - FLOOR_HOPS, None)
        self._levels.pop(number, None)
        self._gains.pop(number - NEIGHBOURS, None)


def _limit(wanted: Decibels, headroom: Decibels) -> Decibels:
    """Return the gains of pieces, lowered where they would exceed the headroom and, by a slope, around it."""
    excess = np.maximum(0.0, wanted - headroom)
    if not excess.any():
        return wanted
    slope = LIMIT_DB_PER_PIECE * np.arange(len(excess))
    after = np.maximum.accumulate(excess + slope) - slope
    before = np.maximum.accumulate((excess - slope)[::-1])[::-1] + slope
    limited: Decibels = np.maximum(0.0, wanted - np.maximum(after, before))
    return limited


def _at_edges(pieces: Decibels) -> Decibels:
    """Return the gain where each piece begins, and where the last one ends: the lower one of both sides."""
    padded = np.concatenate([pieces[:1], pieces, pieces[-1:]])
    edges: Decibels = np.minimum(padded[:-1], padded[1:])
    return edges


def _offset(audio: npt.NDArray[np.float64], voice: npt.NDArray[np.float64]) -> float:
    """Return the part of the mean that is more than the sound itself accounts for."""
    mean, usual = float(audio.mean()), float(voice.std()) / 4
    return mean - min(max(mean, -usual), usual)


def _without_rumble(audio: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return audio less its moving average, which is missing 80 samples at each end: -9 dB at 50 Hz, 0 dB at 100 Hz."""
    sums = np.cumsum(np.concatenate([[0.0], audio]))
    means = (sums[RUMBLE_SAMPLES:] - sums[:-RUMBLE_SAMPLES]) / RUMBLE_SAMPLES
    reach = RUMBLE_SAMPLES // 2
    rest: npt.NDArray[np.float64] = audio[reach : len(audio) - reach] - means
    return rest


def _mean_squares(audio: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean square of each frame; that of the last one is over what there is of it."""
    sums = np.square(_rows(audio, FRAME_SAMPLES)).sum(axis=1)
    lengths = np.minimum(FRAME_SAMPLES, len(audio) - np.arange(len(sums)) * FRAME_SAMPLES)
    means: npt.NDArray[np.float64] = sums / lengths
    return means


def _rows(audio: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Return the samples in rows, the last one filled with zeros."""
    return np.pad(audio, (0, -len(audio) % size)).reshape(-1, size)
