"""Mixing several channels to one by their energies, as the audio arrives.

Plain averaging attenuates sound that is in one channel only (by 6 dB with two channels, by 15.6 dB with six) and
cancels sound that two channels hold in opposite phase. This mix corrects the average in two ways, both derived from the
covariance of the channels, block by block:

- A channel that is in opposite phase to those before it is inverted before it is added.
- The average is amplified to the joint power of the channels. Identical channels count once, uncorrelated channels
  count in full, silent ones do not count. So a voice keeps the level that it has in its own channel.

Identical channels are averaged exactly. The mix depends on the audio alone, so decoding a recording again gives the
same result. At most 0.3 s of audio are held at a time.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.domain.audio.spans import SAMPLE_RATE
from pipeline.domain.audio.speech import Signal

Channels = npt.NDArray[np.float32]
"""16 kHz audio in [-1, 1], shape ``(samples, channels)``."""

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

BLOCK_SAMPLES = SAMPLE_RATE // 10
"""Samples that share one setting, 0.1 s; the mix changes linearly from one setting to the next."""

WINDOW = (1.0, 2.0, 3.0, 2.0, 1.0)
"""Weights of the blocks around a block in its covariance: half a second, symmetrical."""

REACH = len(WINDOW) // 2

OPPOSED_FROM, OPPOSED_TO = -0.5, -0.9
"""Correlations between which a channel changes from being added to being subtracted.

Two people who talk at the same time in different channels have a higher correlation."""

ALIKE_DB, UNLIKE_DB = 1.5, 3.0
"""Corrections smaller than the first are not made; those larger than the second are made in full. So usual stereo,
whose channels correlate by 0.8 or more, is averaged exactly."""

MEMORY_S = 1.0
"""Time constant, in seconds, of the powers that determine the correction, which keeps it constant during a pause."""

MAX_CORRECTION_EXCESS = 10 ** (3 / 20)
"""Factor by which the smoothed correction may exceed that of the current block: 3 dB."""

_DECAY = math.exp(-BLOCK_SAMPLES / SAMPLE_RATE / MEMORY_S)


@dataclass(frozen=True, slots=True)
class BlockMix:
    """The setting for one block: the mean of the channels, each multiplied by its sign, times the gain.

    Attributes:
        signs: sign of each channel, -1 to 1.
        gain: 1 or more.
    """

    signs: Vector
    gain: float

    def halfway(self, other: BlockMix) -> BlockMix:
        """Return the setting between this one and another, for the boundary between their blocks."""
        return BlockMix((self.signs + other.signs) / 2, (self.gain + other.gain) / 2)


class Downmixer:
    """A mixer for the channels of one recording. It expects no low-frequency effects channel: leave that one out.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._rest: Channels = np.empty((0, channels), np.float32)
        self._waiting: deque[Channels] = deque()  # blocks without a setting yet
        self._covariances: deque[Matrix] = deque(maxlen=len(WINDOW))
        self._powers: tuple[float, ...] = (0.0, 0.0)  # joint power and power of the mean, both decaying
        self._settled: tuple[Channels, BlockMix] | None = None  # the last block with a setting
        self._begin: BlockMix | None = None  # the setting at its first sample

    def feed(self, audio: Channels) -> Signal:
        """Add samples, shape ``(samples, channels)``; return the mix as far as it is final."""
        if self._channels == 1:
            return audio[:, 0]
        audio = np.concatenate([self._rest, audio])
        whole = len(audio) - len(audio) % BLOCK_SAMPLES
        self._rest = audio[whole:]
        return _joined([self._take(block) for block in audio[:whole].reshape(-1, BLOCK_SAMPLES, self._channels)])

    def finish(self) -> Signal:
        """Return the mix of the remaining samples."""
        mixed = [self._take(self._rest)] if len(self._rest) else []
        while self._waiting:
            mixed.append(self._settle())
        if self._settled is not None:
            block, setting = self._settled
            mixed.append(_mix(block, self._begin or setting, setting))
        return _joined(mixed)

    def _take(self, block: Channels) -> Signal:
        self._waiting.append(block)
        self._covariances.append(covariance(block))
        return self._settle() if len(self._waiting) > REACH else np.empty(0, np.float32)

    def _settle(self) -> Signal:
        """Compute the setting of the block that has waited longest; return the mix of the block before it."""
        block = self._waiting.popleft()
        setting = self._setting(block, self._window())
        before, self._settled = self._settled, (block, setting)
        if before is None:
            return np.empty(0, np.float32)
        begin, end = self._begin or before[1], before[1].halfway(setting)
        self._begin = end
        return _mix(before[0], begin, end)

    def _window(self) -> Matrix:
        """Return the weighted covariance around the block removed last; the blocks that still wait come after it."""
        after = len(self._waiting)
        weighted = [
            WINDOW[REACH + after - age] * matrix
            for age, matrix in enumerate(reversed(self._covariances))
            if age - after <= REACH
        ]
        return np.sum(weighted, axis=0)  # type: ignore[no-any-return]

    def _setting(self, block: Channels, window: Matrix) -> BlockMix:
        signs = signs_of(window)
        together, mean = joint_power(window), float(signs @ window @ signs) / self._channels**2
        self._powers = tuple(_DECAY * past + now for past, now in zip(self._powers, (together, mean), strict=True))
        gain = min(_ratio(*self._powers), MAX_CORRECTION_EXCESS * _ratio(together, mean), self._channels)
        peak = float(np.abs(block @ signs).max()) / self._channels
        return BlockMix(signs, max(1.0, min(_tolerant(gain), 1 / max(peak, 1e-9))))


def covariance(block: Channels) -> Matrix:
    """Return the covariance of the channels of ``(samples, channels)``: a sum of products, without constant offsets."""
    centred = block.astype(np.float64) - block.mean(axis=0, dtype=np.float64)
    return centred.T @ centred  # type: ignore[no-any-return]


def signs_of(matrix: Matrix) -> Vector:
    """Return the sign of each channel, from 1 (added) to -1 (subtracted), given the covariance.

    The channels are added one by one. A channel in opposite phase to the sum so far is subtracted from it.
    """
    signs = np.ones(len(matrix))
    for channel in range(1, len(matrix)):
        before = signs[:channel]
        power = float(before @ matrix[:channel, :channel] @ before) * matrix[channel, channel]
        if power > 0:
            correlation = float(before @ matrix[:channel, channel]) / math.sqrt(power)
            signs[channel] = np.interp(correlation, (OPPOSED_TO, OPPOSED_FROM), (-1.0, 1.0))
    return signs


def joint_power(matrix: Matrix) -> float:
    """Return the joint power of channels: n identical ones have the power of one, n uncorrelated ones n times that.

    It is the sum of the powers, divided by the number of channels that are alike. That number is the sum of the squares
    of all covariances divided by the sum of the squares of the powers.
    """
    powers = np.diag(matrix)
    squares = float(np.square(matrix).sum())
    return float(powers.sum() * np.square(powers).sum()) / squares if squares else 0.0


def _ratio(power: float, other: float) -> float:
    """Return the ratio of two amplitudes, given their powers; 1 without any sound."""
    if not power:
        return 1.0
    return math.sqrt(power / other) if other else math.inf


def _tolerant(gain: float) -> float:
    """Return the gain without corrections that are too small to matter."""
    decibels = 20 * math.log10(max(gain, 1.0))
    if decibels >= UNLIKE_DB:
        return gain
    return 10 ** (float(np.interp(decibels, (ALIKE_DB, UNLIKE_DB), (0.0, UNLIKE_DB))) / 20)


def _mix(block: Channels, begin: BlockMix, end: BlockMix) -> Signal:
    """Return a block mixed to one channel, with a linear transition from one setting to the other."""
    if begin.gain == end.gain and np.array_equal(begin.signs, end.signs):
        weights = begin.signs * (begin.gain / len(begin.signs))
        return (block @ weights.astype(np.float32)).astype(np.float32)
    first, last = (block @ setting.signs / len(setting.signs) for setting in (begin, end))
    passing = (np.arange(len(block)) + 0.5) / len(block)
    mean = first + (last - first) * passing
    mixed: Signal = (mean * (begin.gain + (end.gain - begin.gain) * passing)).astype(np.float32)
    return mixed


def _joined(pieces: list[Signal]) -> Signal:
    return np.concatenate(pieces) if pieces else np.empty(0, np.float32)
