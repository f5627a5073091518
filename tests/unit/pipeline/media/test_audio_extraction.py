from __future__ import annotations

import io
import warnings

import av
import numpy as np
import pytest

from pipeline.domain.audio.extraction import AudioFormat, ExtractionOptions
from pipeline.errors import MediaTooLong, MediaUndecodable, NoAudioStream
from pipeline.media.audio_extraction import extract_audio
from tests.support import recordings
from tests.support.recordings import encode, tone
from tests.support.thoroughness import some
from tests.unit.pipeline.media.test_audio_decoder import float_wav, wav_of

with warnings.catch_warnings():  # about audioop, and about a missing ffmpeg program
    warnings.simplefilter("ignore")
    from pydub import AudioSegment

STEREO = wav_of(np.stack([tone(1.0, 300.0), tone(1.0, 1000.0, 4000)], axis=1), 16_000)


def extract(content: bytes, max_duration_s: float = 60.0, **wanted) -> bytes:
    target = io.BytesIO()
    extract_audio(io.BytesIO(content), target, ExtractionOptions(**wanted), max_duration_s)
    return target.getvalue()


def samples_of(content: bytes) -> tuple[np.ndarray, int]:
    """Return the samples in floating point -1..1, shape ``(channels, samples)``, and the sample rate."""
    with av.open(io.BytesIO(content)) as container:
        frames = list(container.decode(audio=0))
        resampler = av.AudioResampler("fltp", frames[0].layout, frames[0].sample_rate)
        parts = [part.to_ndarray() for frame in [*frames, None] for part in resampler.resample(frame)]
        return np.concatenate(parts, axis=1), frames[0].sample_rate


@pytest.mark.parametrize("bit_depth", [1, 2, 4])
def test_pydub_reads_a_wav_of_every_depth_it_knows(bit_depth):
    segment = AudioSegment.from_wav(io.BytesIO(extract(STEREO, bit_depth=bit_depth, sample_rate=16_000)))
    assert (segment.sample_width, segment.frame_rate, segment.channels) == (bit_depth, 16_000, 2)
    assert len(segment) == 1000
    left, right = segment.split_to_mono()
    assert left.max / segment.max_possible_amplitude == pytest.approx(8000 / 32768, abs=0.01)
    assert right.max / segment.max_possible_amplitude == pytest.approx(4000 / 32768, abs=0.01)


@pytest.mark.parametrize(
    ("bit_depth", "step", "bits"), [(1, 1 / 128, 8), (2, 1 / 32768, 16), (3, 1 / 2**23, 24), (4, 1 / 2**31, 32)]
)
def test_every_depth_is_as_exact_as_it_can_be(bit_depth, step, bits):
    content = extract(STEREO, bit_depth=bit_depth, sample_rate=16_000)
    assert int.from_bytes(content[34:36], "little") == bits
    audio, _ = samples_of(content)
    original, _ = samples_of(STEREO)
    error = audio - original
    assert np.abs(error).max() <= step / 2 + 1e-6
    assert abs(error.mean()) < step / 20 + 1e-6  # rounded, not truncated


def test_samples_of_the_same_shape_come_through_unchanged():
    np.testing.assert_array_equal(samples_of(extract(STEREO, sample_rate=16_000))[0], samples_of(STEREO)[0])


@pytest.mark.parametrize("output_format", AudioFormat)
@pytest.mark.parametrize("sample_rate", some([8000, 22_050, 48_000, 192_000]))
def test_every_format_takes_every_rate_and_keeps_channels_and_length(output_format, sample_rate):
    audio, rate = samples_of(extract(STEREO, output_format=output_format, sample_rate=sample_rate))
    highest = {AudioFormat.MP3: 48_000, AudioFormat.OGG: 48_000, AudioFormat.M4A: 96_000}.get(
        output_format, sample_rate
    )
    assert rate == (48_000 if output_format is AudioFormat.OGG else min(sample_rate, highest))
    assert len(audio) == 2
    assert audio.shape[1] / rate == pytest.approx(1.0, abs=0.15)
    spectrum = np.abs(np.fft.rfft(audio[0]))
    assert np.argmax(spectrum) * rate / audio.shape[1] == pytest.approx(300, abs=8)


@pytest.mark.parametrize("bit_depth", [2, 3, 4])
def test_flac_has_the_depth_that_was_asked_for(bit_depth):
    content = extract(STEREO, output_format=AudioFormat.FLAC, bit_depth=bit_depth, sample_rate=16_000)
    assert (int.from_bytes(content[18:26], "big") >> 36 & 31) + 1 == bit_depth * 8  # STREAMINFO
    np.testing.assert_allclose(samples_of(content)[0], samples_of(STEREO)[0], atol=1e-6)


def test_nothing_folds_down_from_above_half_the_new_rate():
    audio, _ = samples_of(extract(encode(tone(1.0, 7000.0), "wav"), sample_rate=8000))
    assert np.abs(audio[0, 1000:-1000]).max() < 0.01


def test_the_sound_of_a_video_is_taken():
    audio, rate = samples_of(extract(encode(tone(2.0), "mp4", picture=True)))
    assert (rate, audio.shape[1] / rate) == (22_050, pytest.approx(2.0, abs=0.1))


def test_more_channels_than_a_format_takes_become_two():
    surround = wav_of(np.tile(tone(0.5)[:, None], 6))
    assert len(samples_of(extract(surround, output_format=AudioFormat.MP3))[0]) == 2
    assert len(samples_of(extract(surround))[0]) == 6


def test_a_rate_that_changes_in_mid_stream_is_followed():
    chained = encode(tone(1.0), "aac", rate=44_100) + encode(tone(1.0), "aac", rate=16_000)
    audio, rate = samples_of(extract(chained))
    assert audio.shape[1] / rate == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (recordings.picture_only(), NoAudioStream),
        (b"words " * 100, MediaUndecodable),
        (b"#EXTM3U\n/etc/passwd\n", MediaUndecodable),
        (wav_of(np.zeros((0, 1))), MediaUndecodable),
    ],
)
def test_what_has_no_sound_is_refused(content, error):
    with pytest.raises(error):
        extract(content)


def test_more_than_the_limit_is_refused():
    with pytest.raises(MediaTooLong, match="limit of 2 seconds"):
        extract(encode(tone(3.0), "flac"), max_duration_s=2.0)


@pytest.mark.parametrize("output_format", list(AudioFormat))
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_samples_that_are_no_numbers_of_sound_are_extracted_as_some(output_format, bad):
    sound = (np.tile(tone(1.0), 3).astype(np.float32) / 32_768)[:, None]
    sound[8000:8100] = bad
    audio, rate = samples_of(extract(float_wav(sound, 48_000), output_format=output_format, sample_rate=48_000))
    assert audio.shape[1] / rate == pytest.approx(1.0, abs=0.15)
    assert np.abs(audio).max() > 0.1
    assert np.isfinite(audio).all()
