"""Decoding of any recording to 16 kHz mono, block by block, on its own timeline, with PyAV, which bundles FFmpeg."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
from typing_extensions import override

from pipeline.domain.audio.downmix import Channels, Downmixer
from pipeline.domain.audio.level import LevelControl
from pipeline.domain.audio.sound_options import DEFAULT_SOUND_OPTIONS, SoundOptions
from pipeline.domain.audio.spans import FULL_SCALE, SAMPLE_RATE, to_samples, to_seconds
from pipeline.domain.audio.speech import FRAME_SAMPLES, Samples, Signal
from pipeline.domain.audio.tracks import Track
from pipeline.errors import MediaTooLong, MediaUndecodable
from pipeline.media.containers import ESTIMATED_DURATION, is_truncated, states_duration
from pipeline.media.demux import clamp_samples, decodable_frames
from pipeline.media.recording_decoder import RecordingDecoder
from pipeline.media.track_choice import open_track

BLOCK_SAMPLES = 960 * FRAME_SAMPLES
"""Number of samples in memory at a time: 30.7 s, 1 MB."""

GAP_TOLERANCE_S = 0.05
"""Largest gap between time stamps that is ignored, since they are rounded and jitter."""

REWIND_TOLERANCE_S = 1.0
"""Time stamps that go back further than this were reset; the sound is then taken to continue without a gap."""

MAX_BLIND_GAP_S = 600.0
"""Longest gap that is accepted if nothing else in the file confirms it."""

CLOCK_S = 2**33 / 90_000
"""Time until the clock of MPEG-TS and MPEG-PS overflows."""

FIFO_SAMPLES = 1 << 15
"""Number of samples that are resampled together: for single frames, calls would cost more than the arithmetic."""


class AudioDecoder(RecordingDecoder):
    """A decoder of one audio track of a recording: the requested one, or the best (``domain.audio.tracks``).

    Damaged packets are left out. Their time, gaps between time stamps and a late start of the sound (as in a video)
    are filled with silence, so that every sample has the time at which a player would play it.

    Channels are mixed by their energies (``domain.audio.downmix``) and quiet speech is raised (``domain.audio.level``)
    in floating point; only the result is rounded to 16 bits.

    Args:
        file: a seekable file object; read in the thread that iterates over ``blocks``.
        max_duration_s: longest recording, in seconds.
        sound: track to decode, and whether to control the level.

    Attributes:
        truncated: known after the last block: the recording breaks off, or is shorter than it states.
        tracks: known after the first block: the audio tracks, the decoded one marked.
    """

    def __init__(self, file: BinaryIO, max_duration_s: float, sound: SoundOptions = DEFAULT_SOUND_OPTIONS) -> None:
        self._file = file
        self._max_duration_s = max_duration_s
        self._sound = sound
        self._broken = False
        self.truncated = False
        self.tracks: tuple[Track, ...] = ()

    @override
    def blocks(self) -> Generator[Samples]:
        """Yield blocks of ``BLOCK_SAMPLES``; the last one may be shorter.

        Raises:
            MediaUndecodable: the file is not a recording, or none of its sound can be decoded.
            NoAudioStream: the file has no sound.
            NoSuchTrack: the file has no such track.
            MediaTooLong: the recording is longer than the limit; raised once the limit is reached.
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
        for frame in decodable_frames(container, stream, self._set_broken):
            silence = timeline.place(frame)
            if silence:
                yield from converter.flush()
                yield from _silence(silence)
            yield from converter.feed(frame)
        yield from converter.flush()

    def _set_broken(self, broken: bool) -> None:
        """Keep whether the last packet was broken: only damage at the end means that the recording breaks off."""
        self._broken = broken


class _Timeline:
    """The position of decoded sound on the timeline, from time stamps and the amount of sound decoded so far.

    A jump forward of the time stamps is either a gap in the recording or a reset of the clock (a second recording was
    appended, or the encoder restarted). It counts as a gap if the sound after it would still end within the recording.

    A file without a header states no duration, but FFmpeg reads its last time stamps. If the clock ran on through the
    gap, they confirm it; if the clock was reset later, they do not. The end of such a file is accepted only up to the
    longest recording that is allowed. A reset clock usually lies beyond, since that of MPEG-TS runs for 26.5 hours.

    When that clock overflows, FFmpeg continues counting, but it can't tell an overflow from an encoder that restarts at
    0. So a long jump across the overflow is not accepted as a gap: a gap just there is rarer than an encoder that has
    run for a day.
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
        """True if the decoded sound ends before the end that the file states."""
        if self._stated_end_s is None:
            return False
        missing_s = self._stated_end_s - self._position_s
        return missing_s > min(1.0, max(0.15, 0.02 * self._stated_end_s))

    def place(self, frame: Any) -> int:
        """Place the next frame; return the number of samples of silence, at 16 kHz, to insert before it."""
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
    """A converter of frames of any rate, format and layout to 16 kHz mono."""

    def __init__(self) -> None:
        self._setup: tuple[Any, ...] | None = None
        self._resampler: Any = None
        self._fifo: Any = None
        self._channels: list[int] = []  # indices of the channels that are mixed
        self._downmixer: Downmixer | None = None

    def feed(self, frame: Any) -> Iterator[Signal]:
        """Add a frame and yield the audio that is ready. The rate and layout may change within a stream."""
        setup = (frame.sample_rate, frame.format.name, frame.layout.name, frame.layout.nb_channels)
        if setup != self._setup:
            yield from self.flush()
            self._resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=SAMPLE_RATE)
            self._fifo = av.AudioFifo()
            self._channels = _full_range_channels(frame.layout)
            self._downmixer = Downmixer(len(self._channels))
            self._setup = setup
        frame.pts = None  # `_Timeline` has used the time stamps already
        self._fifo.write(frame)
        if self._fifo.samples >= FIFO_SAMPLES:
            yield from self._convert(self._fifo.read())

    def flush(self) -> Iterator[Signal]:
        """Yield the rest of the audio that was added."""
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
    """Yield the same audio with its level controlled."""
    control = LevelControl()
    for piece in signal:
        yield control.feed(piece)
    yield control.finish()


def _to_int16(signal: Signal) -> Samples:
    """Convert audio in [-1, 1] to 16-bit samples."""
    samples: Samples = np.rint(np.clip(signal * FULL_SCALE, -FULL_SCALE, FULL_SCALE - 1)).astype(np.int16)
    return samples


def _origin_s(container: Any) -> float:
    """Return the time stamp, in seconds, at which a player's clock starts: the earliest of sound and video."""
    starts = (
        float(stream.start_time * stream.time_base)
        for stream in container.streams
        if stream.type in ("audio", "video") and stream.start_time is not None and not _is_cover_art(stream)
    )
    return min(starts, default=0.0)


def _is_cover_art(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _stated_end_s(container: Any, stream: Any, origin_s: float) -> float | None:
    """Return the end of the audio that the file states, in seconds from the origin; ``None`` if it states none."""
    if stream.duration:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - origin_s
    tagged = _parse_clock_s(stream.metadata.get("DURATION", ""))  # Matroska's statistics tag
    if tagged is not None:
        return tagged - origin_s
    only_sound = all(other.type != "video" or _is_cover_art(other) for other in container.streams)
    return container.duration / av.time_base if container.duration and only_sound else None


def _parse_clock_s(clock: str) -> float | None:
    """Parse a time such as ``01:02:03.500000000``; return it in seconds, or ``None`` if the text is no such time."""
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
    """Yield the same samples in blocks of one size; the last one may be shorter."""
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
