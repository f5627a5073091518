from __future__ import annotations

import faster_whisper.vad
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.asr.silero_vad import SileroVad, find_speech
from pipeline.domain.audio.spans import SAMPLE_RATE
from pipeline.domain.audio.speech import Framer, SpeechRules
from tests.support import speech


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    joined = speech.recording(speech.of_language("en"), 12.0, seed=3).audio
    return np.rint(joined * 32767).astype(np.int16)


@pytest.mark.parametrize("block", [512, 5000, 30 * SAMPLE_RATE])
def test_blocks_give_the_same_probabilities_as_the_whole_recording(
    recording: npt.NDArray[np.int16], block: int
) -> None:
    recording = recording[: len(recording) // 512 * 512 + 100]  # so that the last frame's context lies in the padding
    padded = np.pad(recording, (0, 412)).astype(np.float32) / 32768.0
    expected = faster_whisper.vad.get_vad_model()(padded).reshape(-1)
    vad, framer = SileroVad(), Framer()
    actual = [vad.probabilities(framer.feed(recording[i : i + block])) for i in range(0, len(recording), block)]
    actual.append(vad.probabilities(framer.finish()))
    np.testing.assert_allclose(np.concatenate(actual), expected, atol=1e-4)
    assert expected.max() > 0.9


def test_recordings_do_not_affect_each_other(recording: npt.NDArray[np.int16]) -> None:
    frames = recording[: 512 * 50].reshape(-1, 512)
    first, second = SileroVad(), SileroVad()
    alone = first.probabilities(frames)
    second.probabilities(frames)
    np.testing.assert_array_equal(SileroVad().probabilities(frames), alone)


def test_no_frames_no_probabilities() -> None:
    assert SileroVad().probabilities(np.empty((0, 512), np.int16)).shape == (0,)


RULES = SpeechRules.from_ms(0.5, min_speech_duration_ms=0, min_silence_duration_ms=500, speech_pad_ms=0)


def test_speech_is_found_between_silences() -> None:
    [sample] = [one for one in speech.of_language("en") if one.name == "quick_brown_fox"]
    joined = speech.join([sample, sample], [3.0, 4.0])
    spans = find_speech(np.rint(joined.audio * 32_767).astype(np.int16), RULES)
    assert [(span.start_s, span.end_s) for span in spans] == [
        (pytest.approx(one.start_s, abs=0.3), pytest.approx(one.end_s, abs=0.5)) for one in joined.placements
    ]
    assert find_speech(np.zeros(SAMPLE_RATE, np.int16), RULES) == ()
