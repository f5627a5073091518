"""Real speech is found at the same place in a bad recording as in a good one."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio

from pipeline.asr.silero_vad import SileroVad
from pipeline.domain.audio.spans import SAMPLE_RATE
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.media.audio_decoder import AudioDecoder
from pipeline.media.streaming_splitter import StreamingSplitter
from pipeline.ports import SplitPart
from pipeline.settings import SplitSettings, VadSettings
from pipeline.testing.memory_media import MemoryMediaStore
from tests.support import speech
from tests.support.recordings import stream, wav_of
from tests.support.speech import Sample
from tests.support.thoroughness import some, thorough
from tests.unit.pipeline.media.splitting import split_request

Spans = list[tuple[float, float]]


async def spans_of(*channels: np.ndarray, options: TranscriptionOptions | None = None) -> Spans:
    """Return the spans, in seconds, in which speech is found in a WAV with these channels in [-1, 1]."""
    samples = np.rint(np.clip(np.stack(channels, axis=1), -1, 32_767 / 32_768) * 32_768).astype(np.int16)
    store = MemoryMediaStore()
    await store.write("t1/source", stream(wav_of(samples)))
    splitter = StreamingSplitter(
        store, SileroVad, VadSettings(), SplitSettings(), lambda file, sound: AudioDecoder(file, 3600.0, sound)
    )
    parts = [event async for event in splitter.split(split_request(options)) if isinstance(event, SplitPart)]
    return [(span.start_s, span.end_s) for part in parts for chunk in part.chunks for span in chunk.spans]


def assert_alike(found: Spans, expected: Spans, tolerance_s: float) -> None:
    assert len(found) == len(expected), (found, expected)
    np.testing.assert_allclose(found, expected, atol=tolerance_s)


@pytest.fixture(scope="module")
def talk() -> np.ndarray:
    """Two minutes of speech in nine languages with pauses and a little noise; half a minute in a quick run."""
    audio = speech.recording(speech.corpus(), 120.0 if thorough() else 30.0, seed=4).audio
    return audio + np.random.default_rng(4).normal(0, 0.0003, len(audio))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spans_of_talk(talk: np.ndarray) -> Spans:
    """The spans in which speech is found in the unchanged talk."""
    return await spans_of(talk)


@cache
def noise_of(colour: str) -> np.ndarray:
    """Return a minute of noise with a standard deviation of 1, or a quarter of a minute in a quick run."""
    samples = (60 if thorough() else 15) * SAMPLE_RATE
    frequencies = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[colour]
    shape = np.where(frequencies > 20, np.maximum(frequencies, 20.0) ** -slope, 0.0)
    spectrum = np.fft.rfft(np.random.default_rng(6).normal(0, 1, samples)) * shape
    noise = np.fft.irfft(spectrum)
    return noise / noise.std()


@pytest.mark.parametrize("sample", some(speech.corpus()), ids=lambda sample: f"{sample.lang} {sample.name}")
async def test_speech_of_any_level_is_found_in_the_same_place(sample: Sample) -> None:
    audio = speech.load(sample.path)
    expected = await spans_of(audio)
    assert expected
    for gain_db in some((-40, -30, -18, -6), sample.name):
        assert_alike(await spans_of(audio * 10 ** (gain_db / 20)), expected, tolerance_s=0.2)  # one padding


@pytest.mark.parametrize("gain_db", [-40, -30, -18, -6])
async def test_a_long_quiet_recording_is_split_like_a_loud_one(
    talk: npt.NDArray[np.float64], spans_of_talk: list[tuple[float, float]], gain_db: int
) -> None:
    assert_alike(await spans_of(talk * 10 ** (gain_db / 20)), spans_of_talk, tolerance_s=0.25)


@pytest.mark.parametrize("shape", ["left", "right", "inverted", "centre of six", "one of sixteen"])
async def test_speech_is_found_in_whatever_channels_it_is(
    talk: npt.NDArray[np.float64], spans_of_talk: list[tuple[float, float]], shape: str
) -> None:
    silence = np.zeros_like(talk)
    channels = {
        "left": (talk, silence),
        "right": (silence, talk),
        "inverted": (talk, -talk),
        "centre of six": (silence, silence, talk, silence, silence, silence),
        "one of sixteen": (*[silence] * 9, talk, *[silence] * 6),
    }[shape]
    assert_alike(await spans_of(*channels), spans_of_talk, tolerance_s=0.05)


@pytest.mark.parametrize("level_db", some([-80, -60, -50, -40, -30]))
@pytest.mark.parametrize("colour", ["white", "pink", "brown"])
async def test_no_speech_is_found_in_the_noise_of_a_room(level_db: int, colour: str) -> None:
    assert await spans_of(noise_of(colour) * 10 ** (level_db / 20)) == []


async def test_no_speech_is_found_in_digital_silence() -> None:
    assert await spans_of(np.zeros(60 * SAMPLE_RATE)) == []
