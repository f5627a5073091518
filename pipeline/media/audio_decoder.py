"""Any recording → 16 kHz mono, block by block, on the recording's own timeline (PyAV, which bundles FFmpeg)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, BinaryIO

import av
import av.error
import numpy as np

from pipeline.domain.audio.downmix import Channels, Downmixer
from pipeline.domain.audio.level import LevelControl
from pipeline.domain.audio.sound_options import DEFAULT_SOUND_OPTIONS, SoundOptions
from pipeline.domain.audio.spans import FULL_SCALE, SAMPLE_RATE, to_samples, to_seconds
from pipeline.domain.audio.speech import FRAME_SAMPLES, Samples, Signal
from pipeline.domain.audio.tracks import Track
from pipeline.errors import MediaTooLong, MediaUndecodable
from pipeline.media.containers import ESTIMATED_DURATION, is_truncated, states_duration
from pipeline.media.demux import clamp_samples, decodable_frames
from pipeline.media.track_choice import open_track

BLOCK_SAMPLES = 960 * FRAME_SAMPLES
"""30.7 s, 1 MB: what is in memory at a time."""

GAP_TOLERANCE_S = 0.05
"""Time stamps are rounded, and jitter; a gap counts from here on."""

REWIND_TOLERANCE_S = 1.0
"""Time stamps that fall back further than this were reset; from there on they are taken to follow on."""

MAX_BLIND_GAP_S = 600.0
"""Longest gap that is believed where nothing else in the file confirms it."""

CLOCK_S = 2**33 / 90_000
"""How long the clock of MPEG-TS and MPEG-PS runs until it overflows."""

FIFO_SAMPLES = 1 << 15
"""Frames are resampled together: one by one, calls would cost more than the arithmetic."""


class AudioDecoder:
    """One audio track of a recording: the one that is asked for, or the best (``domain.tracks``).

    Damaged packets are left out; their time, gaps between time stamps, and a late start of the sound (in a video, say)
    are filled with silence, so that every sample stands where a player would play it.

    Channels are mixed by their energies (``domain.downmix``) and quiet speech is raised (``domain.level``) in floating
    point; only the outcome is rounded to 16 bits.

    Args:
        file: a seekable file object, read from whichever thread iterates.
        max_duration_s: more than this is refused.
        sound: how the sound is taken.

    Attributes:
        truncated: known after the last block: the recording broke off, or is shorter than it says.
        tracks: known after the first block: the audio tracks, the one that is decoded marked.
    """

    def __init__(self, file: BinaryIO, max_duration_s: float, sound: SoundOptions = DEFAULT_SOUND_OPTIONS) -> None:
        self._file = file
        self._max_duration_s = max_duration_s
        self._sound = sound
        self._broken = False
        self.truncated = False
        self.tracks: tuple[Track, ...] = ()

    def blocks(self) -> Generator[Samples]:
        """Yield blocks of ``BLOCK_SAMPLES``, the last one shorter.

        Raises:
            MediaUndecodable: not a recording, or nothing of it could be decoded.
            NoAudioStream: no sound in it.
            NoSuchTrack: not the track that is wanted.
            MediaTooLong: longer than the limit; raised when the limit is reached.
        """
        with open_track(self._file, self._sound.audio_track) as track:
            self.tracks = track.tracks
            yield from self._decode(track.container, track.stream, track.complete)

    def _decode(self, container: Any, stream: Any, complete: bool | None) -> Iterator[Samples]:
        timeline = _Timeline(container, stream, self._max_duration_s)
        samples = 0
        signal = self._signal(container, stream, timeline)
        if self._sound.normalize_level:
            signal = _level_controlled(signal)
        for block in _blocks_of(map(_to_int16, signal), BLOCK_SAMPLES):
            samples += len(block)
            if to_seconds(samples) > self._max_duration_s:
                raise MediaTooLong(f"The recording is longer than the limit of {self._max_duration_s:.0f} seconds.")
            yield block
        if not samples:
            raise MediaUndecodable("The file has an audio stream, but no sound in it could be decoded.")
        self.truncated = not complete and self._is_truncated(container.format.name, timeline)

    def _is_truncated(self, format_name: str, timeline: _Timeline) -> bool:
        return (
            self._broken
            or is_truncated(format_name, self._file)
            or (timeline.ends_early and states_duration(format_name, self._file))
        )

    def _signal(self, container: Any, stream: Any, timeline: _Timeline) -> Iterator[Signal]:
        converter = _MonoConverter()
        for frame in decodable_frames(container, stream, self._note_broken):
            silence = timeline.place(frame)
            if silence:
                yield from converter.flush()
                yield from _silence(silence)
            yield from converter.feed(frame)
        yield from converter.flush()

    def _note_broken(self, broken: bool) -> None:
        self._broken = broken


class _Timeline:
    """Compares where a recording's time stamps put the sound with how much of it has been decoded.

    A jump forward is a hole in the recording, or a clock that was set anew (another recording joined on, an encoder
    that began again). It is taken for a hole where the sound after it still ends before the recording does. A file
    without a header has no length, but FFmpeg reads its last time stamps: a clock that ran on through a hole confirms
    it there, one that was set back later does not. Such a file is believed up to the longest recording that is allowed;
    a clock set anew falls beyond that as a rule, since that of MPEG-TS runs for 26.5 hours.

    FFmpeg counts on where that clock overflows, but can't tell an overflow from an encoder that begins again at 0. So a
    long jump over the overflow is not believed: a hole just there is rarer than an encoder that has run for a day.
    """

    def __init__(self, container: Any, stream: Any, max_duration_s: float) -> None:
        self._origin_s = _origin_s(container)
        self._stated_end_s = _stated_end_s(container, stream, self._origin_s)
        end_s = container.duration / av.time_base + 1.0 if container.duration else 0.0
        is_stated = container.duration and container.format.name not in ESTIMATED_DURATION
        self._last_believable_s = end_s if is_stated else min(end_s, max_duration_s)
        self._blind_gap_s = GAP_TOLERANCE_S if is_stated else MAX_BLIND_GAP_S
        self._position_s = 0.0

    @property
    def ends_early(self) -> bool:
        """Whether what was decoded ends before the end the file states."""
        if self._stated_end_s is None:
            return False
        missing_s = self._stated_end_s - self._position_s
        return missing_s > min(1.0, max(0.15, 0.02 * self._stated_end_s))

    def place(self, frame: Any) -> int:
        """Take the next frame; return how many samples (at 16 kHz) of silence belong before it."""
        gap_s = 0.0
        if frame.time is not None:
            gap_s = frame.time - self._origin_s - self._position_s
            if gap_s < -REWIND_TOLERANCE_S or not self._accepts_gap(gap_s, frame.time):
                self._origin_s += gap_s
                gap_s = 0.0
            elif gap_s <= GAP_TOLERANCE_S:
                gap_s = 0.0
        self._position_s += gap_s + frame.samples / frame.sample_rate
        return to_samples(gap_s)

    def _accepts_gap(self, gap_s: float, time_s: float) -> bool:
        if gap_s <= self._blind_gap_s:
            return True
        overflows = (time_s - gap_s) // CLOCK_S != time_s // CLOCK_S
        return not overflows and self._position_s + gap_s <= self._last_believable_s


class _MonoConverter:
    """Converts frames of any rate, format and layout to 16 kHz mono."""

    def __init__(self) -> None:
        self._setup: tuple[Any, ...] | None = None
        self._resampler: Any = None
        self._fifo: Any = None
        self._channels: list[int] = []  # channels that are mixed
        self._downmixer: Downmixer | None = None

    def feed(self, frame: Any) -> Iterator[Signal]:
        """Yield what is ready after one more frame. A change of rate or layout in mid-stream is fine."""
        setup = (frame.sample_rate, frame.format.name, frame.layout.name, frame.layout.nb_channels)
        if setup != self._setup:
            yield from self.flush()
            self._resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=SAMPLE_RATE)
            self._fifo = av.AudioFifo()
            self._channels = _full_range_channels(frame.layout)
            self._downmixer = Downmixer(len(self._channels))
            self._setup = setup
        frame.pts = None  # the timeline has dealt with time stamps
        self._fifo.write(frame)
        if self._fifo.samples >= FIFO_SAMPLES:
            yield from self._convert(self._fifo.read())

    def flush(self) -> Iterator[Signal]:
        """Yield the rest of what was fed."""
        if self._setup is None or self._downmixer is None:
            return
        self._setup = None
        if self._fifo.samples:
            yield from self._convert(self._fifo.read())
        yield from self._convert(None)
        yield self._downmixer.finish()

    def _convert(self, frame: Any) -> Iterator[Signal]:
        if frame is not None:
            clamp_samples(frame)
        try:
            resampled = self._resampler.resample(frame)
        except av.error.FFmpegError as error:
            raise MediaUndecodable("The sound has a sample rate or channels that can't be converted.") from error
        for converted in resampled:
            channels: Channels = converted.to_ndarray().reshape(-1, converted.layout.nb_channels)
            if len(self._channels) < channels.shape[1]:
                channels = channels[:, self._channels]
            yield self._downmixer.feed(channels) if self._downmixer else channels[:, 0]


def _full_range_channels(layout: Any) -> list[int]:
    """Return the channels that may hold speech: all but those of low-frequency effects, unless there are no others."""
    channels = range(layout.nb_channels)
    return [index for index in channels if not layout.channels[index].name.startswith("LFE")] or list(channels)


def _level_controlled(signal: Iterator[Signal]) -> Iterator[Signal]:
    """Yield the same audio at the working level."""
    control = LevelControl()
    for piece in signal:
        yield control.feed(piece)
    yield control.finish()


def _to_int16(signal: Signal) -> Samples:
    """Return audio in [-1, 1] as 16-bit samples."""
    samples: Samples = np.rint(np.clip(signal * FULL_SCALE, -FULL_SCALE, FULL_SCALE - 1)).astype(np.int16)
    return samples


def _origin_s(container: Any) -> float:
    """Return where a player's clock begins: with the earliest sound or moving picture."""
    starts = (
        float(stream.start_time * stream.time_base)
        for stream in container.streams
        if stream.type in ("audio", "video") and stream.start_time is not None and not _is_cover_art(stream)
    )
    return min(starts, default=0.0)


def _is_cover_art(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _stated_end_s(container: Any, stream: Any, origin_s: float) -> float | None:
    """Return where the audio ends by the file, from the origin; ``None`` where it says nothing of the audio."""
    if stream.duration:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - origin_s
    tagged = _parse_clock_s(stream.metadata.get("DURATION", ""))  # Matroska's statistics tag
    if tagged is not None:
        return tagged - origin_s
    only_sound = all(other.type != "video" or _is_cover_art(other) for other in container.streams)
    return container.duration / av.time_base if container.duration and only_sound else None


def _parse_clock_s(clock: str) -> float | None:
    """Return ``01:02:03.500000000`` in seconds; ``None`` where it is no such clock."""
    parts = clock.split(":")
    if len(parts) != 3:
        return None
    try:
        hours, minutes, seconds = map(float, parts)
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds


def _silence(samples: int) -> Iterator[Signal]:
    for start in range(0, samples, BLOCK_SAMPLES):
        yield np.zeros(min(BLOCK_SAMPLES, samples - start), np.float32)


def _blocks_of(pieces: Iterator[Samples], size: int) -> Iterator[Samples]:
    """Yield the same samples in blocks of one size, the last one shorter."""
    pending: list[Samples] = []
    count = 0
    for piece in pieces:
        pending.append(piece)
        count += len(piece)
        if count >= size:
            audio = np.concatenate(pending)
            whole = count - count % size
            yield from audio[:whole].reshape(-1, size)
            pending, count = [audio[whole:]], count - whole
    if count:
        yield np.concatenate(pending)
