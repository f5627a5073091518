"""The audio track of a recording that is taken, ready to be decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import av
import numpy as np
from av.stream import Disposition

from pipeline.domain.audio.tracks import Track, candidates, is_auxiliary_title, known_language, mark_chosen
from pipeline.errors import MediaUndecodable, NoAudioStream
from pipeline.media.demux import clamp_samples, decode_packet, open_recording, packets
from pipeline.media.header_repair import correct_sizes

PROBED_S = 30.0
"""Seconds of sound that are looked at to tell a silent track from others."""

MAX_SILENT_AMPLITUDE = 10 ** (-84 / 20)
"""Amplitude of full scale, two steps of 16 bits: lossy codecs and dither make as much of digital silence."""

_AUXILIARY = (
    Disposition.comment
    | Disposition.descriptions
    | Disposition.hearing_impaired
    | Disposition.visual_impaired
    | Disposition.clean_effects
    | Disposition.karaoke
    | Disposition.non_diegetic
    | Disposition.dependent
)
_NO_TITLES = ("handler", "core media", "mainconcept", "apple sound", "iso media")
"""Parts of what programs write where a title may stand."""


@dataclass(frozen=True, slots=True)
class OpenTrack:
    """A recording with the audio track that is taken of it.

    Attributes:
        container: the open recording.
        stream: the track; the container gives the packets of no other.
        tracks: all audio tracks, the taken one marked.
        complete: whether all of the sound is there that the header states, where that is known (``headers``).
    """

    container: Any
    stream: Any
    tracks: tuple[Track, ...]
    complete: bool | None


@contextmanager
def open_track(file: BinaryIO, wanted: str | None = None) -> Iterator[OpenTrack]:
    """Open a recording and choose the track.

    Where several could be taken, the first seconds of their sound are decoded to leave out those that are silent or
    can't be decoded; then the recording is opened again, from its start.

    Args:
        file: the recording, seekable.
        wanted: index or language of the track; see ``domain.tracks``.

    Raises:
        MediaUndecodable: not a recording, or in a format that no decoder knows.
        NoAudioStream: there is no sound in it.
        NoSuchTrack: not the track that is wanted.
    """
    with ExitStack() as opened:
        recording = correct_sizes(file)
        container = opened.enter_context(closing(open_recording(recording.file)))
        tracks = list_tracks(container)
        possible = [track for track in candidates(tracks, wanted) if track.decodable]
        if len(possible) > 1:
            tracks = _probed(container, tracks, possible)
            opened.close()
            recording.file.seek(0)
            container = opened.enter_context(closing(open_recording(recording.file)))
        best = candidates(tracks, wanted)[0]
        if not best.decodable:
            raise MediaUndecodable("The sound is in a format that no decoder here knows.")
        stream = container.streams.audio[best.index]
        _discard_other_streams(container, [stream])
        yield OpenTrack(container, stream, mark_chosen(tracks, best.index), recording.complete)


def list_tracks(container: Any) -> tuple[Track, ...]:
    """Return the audio tracks of an open recording, as the file describes them. Raises ``NoAudioStream``."""
    tracks = tuple(_track(index, stream) for index, stream in enumerate(container.streams.audio))
    if not tracks:
        raise NoAudioStream("The file has no audio stream; there is no sound in it.")
    return tracks


def _track(index: int, stream: Any) -> Track:
    context = stream.codec_context
    title = stream.metadata.get("title") or _handler_title(stream.metadata.get("handler_name", ""))
    return Track(
        index=index,
        codec=context.name if context else None,
        language=known_language(stream.metadata.get("language")),
        title=title,
        channels=context.channels if context else None,
        default=bool(stream.disposition & Disposition.default),
        auxiliary=bool(stream.disposition & _AUXILIARY) or is_auxiliary_title(title),
        decodable=context is not None,
    )


def _handler_title(name: str) -> str | None:
    """Return what stands where QuickTime names the program, if it is a title."""
    return None if not name or any(part in name.lower() for part in _NO_TITLES) else name


def _probed(container: Any, tracks: Sequence[Track], possible: Sequence[Track]) -> tuple[Track, ...]:
    """Return the tracks with what the first seconds of those show that may be taken, as far as it matters."""
    streams = [container.streams.audio[track.index] for track in possible]
    probes = {stream.index: _TrackProbe() for stream in streams}
    _discard_other_streams(container, streams)
    for packet in packets(container, streams):
        probe = probes[packet.stream.index]
        probe.take(*decode_packet(packet))
        if probes[streams[0].index].sounds or probe.seconds >= PROBED_S:
            break
    best_sounds = probes[streams[0].index].sounds
    judged = {
        track.index: probes[stream.index].judge(track, best_sounds)
        for track, stream in zip(possible, streams, strict=True)
    }
    return tuple(judged.get(track.index, track) for track in tracks)


@dataclass(slots=True)
class _TrackProbe:
    """What is known of a track after some of its packets."""

    seconds: float = 0.0
    sounds: bool = False
    broken: bool = False

    def take(self, frames: Sequence[Any], broken: bool) -> None:
        self.broken = self.broken or broken
        for frame in frames:
            self.seconds += frame.samples / frame.sample_rate
            self.sounds = self.sounds or _peak(frame) > MAX_SILENT_AMPLITUDE

    def judge(self, track: Track, best_sounds: bool) -> Track:
        """Return the track as it is known now. Once the best one sounds, the others are not looked at any further."""
        silent = None if best_sounds and not self.sounds else not self.sounds
        return replace(track, silent=silent, decodable=bool(self.seconds) or not self.broken)


def _peak(frame: Any) -> float:
    """Return the highest amplitude of a frame; 1 is full scale."""
    clamp_samples(frame)
    converted = av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate).resample(frame)
    return max((float(np.abs(part.to_ndarray()).max(initial=0.0)) for part in converted), default=0.0)


def _discard_other_streams(container: Any, streams: Sequence[Any]) -> None:
    """Have the container leave out all other streams: pictures are not even read, where it allows that."""
    taken = {stream.index for stream in streams}
    for stream in container.streams:
        if stream.index not in taken:
            stream.discard = av.stream.Discard.all
