"""Choice of the audio track to decode, and opening the recording at that track."""

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
"""Seconds of sound that are decoded to find out whether a track is silent."""

MAX_SILENT_AMPLITUDE = 10 ** (-84 / 20)
"""Highest amplitude of a silent track, relative to full scale: two steps of 16 bits, since lossy codecs and dither turn
digital silence into as much."""

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
"""Parts of the names that programs write where a title may stand."""


@dataclass(frozen=True, slots=True)
class OpenTrack:
    """A recording that is open at the chosen audio track.

    Attributes:
        container: the open recording.
        stream: the chosen track; the container yields the packets of no other.
        tracks: all audio tracks, the chosen one marked.
        complete: whether the file holds all the sound that its header states; ``None`` if unknown (``header_repair``).
    """

    container: Any
    stream: Any
    tracks: tuple[Track, ...]
    complete: bool | None


@contextmanager
def open_track(file: BinaryIO, wanted: str | None = None) -> Iterator[OpenTrack]:
    """Open a recording and choose its track.

    If several tracks qualify, the first seconds of each are decoded to leave out those that are silent or can't be
    decoded. The recording is then opened again, from its start.

    Args:
        file: the recording, seekable.
        wanted: index or language of the track (``domain.audio.tracks``); by default the best track.

    Raises:
        MediaUndecodable: the file is not a recording, or its format has no decoder here.
        NoAudioStream: the file has no sound.
        NoSuchTrack: the file has no such track.
    """
    with ExitStack() as opened:
        recording = correct_sizes(file)
        container = opened.enter_context(closing(open_recording(recording.file)))
        tracks = list_tracks(container)
        possible = [track for track in candidates(tracks, wanted) if track.decodable]
        if len(possible) > 1:
            tracks = _probe(container, tracks, possible)
            opened.close()
            recording.file.seek(0)
            container = opened.enter_context(closing(open_recording(recording.file)))
        best = candidates(tracks, wanted)[0]
        if not best.decodable:
            raise MediaUndecodable("The sound is in a format for which there is no decoder here.")
        stream = container.streams.audio[best.index]
        _discard_other_streams(container, [stream])
        yield OpenTrack(container, stream, mark_chosen(tracks, best.index), recording.complete)


def list_tracks(container: Any) -> tuple[Track, ...]:
    """Return the audio tracks of an open recording as the file describes them. Raises ``NoAudioStream`` if none."""
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
    """Return the handler's name if it is a title; QuickTime writes the name of a program there."""
    return None if not name or any(part in name.lower() for part in _NO_TITLES) else name


def _probe(container: Any, tracks: Sequence[Track], possible: Sequence[Track]) -> tuple[Track, ...]:
    """Decode the first seconds of the possible tracks; return all tracks, with silent and undecodable ones marked.

    Stop as soon as the best track is audible, since no other is needed then.
    """
    streams = [container.streams.audio[track.index] for track in possible]
    probes = {stream.index: _TrackProbe() for stream in streams}
    _discard_other_streams(container, streams)
    for packet in packets(container, streams):
        probe = probes[packet.stream.index]
        probe.add_frames(*decode_packet(packet))
        if probes[streams[0].index].is_audible or probe.seconds >= PROBED_S:
            break
    is_best_audible = probes[streams[0].index].is_audible
    probed = {
        track.index: probes[stream.index].to_track(track, is_best_audible)
        for track, stream in zip(possible, streams, strict=True)
    }
    return tuple(probed.get(track.index, track) for track in tracks)


@dataclass(slots=True)
class _TrackProbe:
    """The state of a track after some of its packets were decoded.

    Attributes:
        seconds: length of the decoded sound.
        is_audible: some of it is louder than silence.
        broken: a packet was damaged.
    """

    seconds: float = 0.0
    is_audible: bool = False
    broken: bool = False

    def add_frames(self, frames: Sequence[Any], broken: bool) -> None:
        self.broken = self.broken or broken
        for frame in frames:
            self.seconds += frame.samples / frame.sample_rate
            self.is_audible = self.is_audible or _peak(frame) > MAX_SILENT_AMPLITUDE

    def to_track(self, track: Track, is_best_audible: bool) -> Track:
        """Return the track with the findings.

        Probing stops once the best track is audible, so then the silence of a quiet track is unknown (``None``).
        """
        silent = None if is_best_audible and not self.is_audible else not self.is_audible
        return replace(track, silent=silent, decodable=bool(self.seconds) or not self.broken)


def _peak(frame: Any) -> float:
    """Return the highest amplitude in a frame; 1 is full scale."""
    clamp_samples(frame)
    converted = av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate).resample(frame)
    return max((float(np.abs(part.to_ndarray()).max(initial=0.0)) for part in converted), default=0.0)


def _discard_other_streams(container: Any, streams: Sequence[Any]) -> None:
    """Make the container skip all other streams; where its format allows it, their bytes are not even read."""
    taken = {stream.index for stream in streams}
    for stream in container.streams:
        if stream.index not in taken:
            stream.discard = av.stream.Discard.all
