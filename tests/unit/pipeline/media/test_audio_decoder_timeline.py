"""The placement of sound whose time stamps jump: gaps, clocks that overflow, and clocks that are reset."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from pipeline.domain.audio.sound_options import SoundOptions
from pipeline.domain.audio.spans import SAMPLE_RATE
from pipeline.media.audio_decoder import AudioDecoder
from tests.support.recordings import Samples, click_at, silence
from tests.support.thoroughness import thorough

MAX_DURATION_S = 36_000.0
OVERFLOW_S = 2**33 / 90_000
"""Time until the clock of MPEG-TS overflows: 26.5 hours."""

CLIP = click_at(1.0, 3.0)


def stream_of(*pieces: tuple[float, Samples], muxer: str = "mpegts") -> bytes:
    """Encode pieces as MPEG audio, each from a time on, in seconds of the stream's clock."""
    target, rate = io.BytesIO(), 48_000
    with av.open(target, "w", format=muxer) as container:
        stream = container.add_stream("mp2", rate=rate, layout="mono")
        stream.codec_context.open()
        for start_s, samples in pieces:
            frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
            frame.sample_rate = SAMPLE_RATE
            resampler = av.AudioResampler("s16", "mono", rate, frame_size=stream.codec_context.frame_size)
            position = round(start_s * rate)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                piece.pts = None
                for packet in stream.encode(piece):
                    packet.pts = packet.dts = round(Fraction(position, rate) * 90_000)
                    packet.time_base = Fraction(1, 90_000)
                    position += stream.codec_context.frame_size
                    container.mux(packet)
    return target.getvalue()


def joined(*pieces: tuple[float, Samples]) -> bytes:
    """Join recordings end to end, each with a clock of its own."""
    return b"".join(stream_of(piece) for piece in pieces)


def clicks(content: bytes, max_duration_s: float = MAX_DURATION_S) -> list[float]:
    """Return the times of the clicks in a recording, in seconds."""
    found, position = [], 0
    for block in AudioDecoder(io.BytesIO(content), max_duration_s, SoundOptions(normalize_level=False)).blocks():
        found.append(position + np.flatnonzero((block > 6000) | (block < -6000)))
        position += len(block)
    loud = np.concatenate(found)
    starts = loud[np.concatenate([[True], np.diff(loud) > SAMPLE_RATE // 10])]
    return [float(start) / SAMPLE_RATE for start in starts]


@pytest.mark.parametrize("hole_s", [10, 599, 697, 3000, 10_000])
@pytest.mark.parametrize("muxer", ["mpegts", "mpeg"])
def test_sound_after_a_hole_stands_after_it(hole_s: int, muxer: str) -> None:
    content = stream_of((0, CLIP), (3 + hole_s, CLIP), muxer=muxer)
    assert clicks(content) == pytest.approx([1, 4 + hole_s], abs=0.05)


def test_packets_that_are_missing_leave_a_hole() -> None:
    hole_s = 697 if thorough() else 97
    total_s = 3 + hole_s + 3
    whole = stream_of((0, np.concatenate([CLIP, silence(hole_s), CLIP])))
    packets = [whole[at : at + 188] for at in range(0, len(whole), 188)]
    count = len(packets)
    left = b"".join(packets[: count * 3 // total_s] + packets[count * (total_s - 3) // total_s :])
    assert clicks(left) == pytest.approx([1, hole_s + 4], abs=0.1)


@pytest.mark.parametrize("before_s", [3, 500])
def test_a_clock_that_overflows_runs_on(before_s: int) -> None:
    content = stream_of((OVERFLOW_S - before_s, CLIP), (OVERFLOW_S, CLIP))
    assert clicks(content) == pytest.approx([1, before_s + 1], abs=0.05)


def test_a_clock_that_overflows_in_an_hour_of_sound_runs_on() -> None:
    content = stream_of((OVERFLOW_S - 3600, CLIP), (OVERFLOW_S - 3, CLIP), (OVERFLOW_S, CLIP))
    assert clicks(content) == pytest.approx([1, 3598, 3601], abs=0.1)


def test_a_hole_over_the_overflow_is_a_hole() -> None:
    content = stream_of((OVERFLOW_S - 100, CLIP), (OVERFLOW_S + 400, CLIP))
    assert clicks(content) == pytest.approx([1, 501], abs=0.05)


@pytest.mark.parametrize("clocks_s", [(0, 0), (5000, 0), (50_000, 3), (0, 50_000), (0, 80_000), (90_000, 10)])
def test_a_clock_that_is_set_anew_follows_on(clocks_s: tuple[int, int]) -> None:
    content = joined(*((clock_s, CLIP) for clock_s in clocks_s))
    assert clicks(content) == pytest.approx([1, 4], abs=0.05)


def test_a_hole_after_a_clock_that_was_set_back_is_a_hole() -> None:
    content = joined((5000, CLIP), (0, CLIP), (700, CLIP))
    assert clicks(content) == pytest.approx([1, 4, 704], abs=0.1)


def test_a_hole_beyond_the_longest_recording_is_none() -> None:
    content = stream_of((0, CLIP), (5000, CLIP))
    assert clicks(content, max_duration_s=3600.0) == pytest.approx([1, 4], abs=0.05)
