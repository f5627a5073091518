"""Real speech through the whole pipeline and a real model: no word is lost, and every segment lies where it is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.domain.audio.spans import SAMPLE_RATE
from pipeline.domain.decoding.transcript import Transcript
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.subtitles.cues import CueStyle, shape_cues
from tests.support import recordings, speech
from tests.support.accuracy import normalise
from tests.support.in_process import InProcess
from tests.support.thoroughness import thorough

Transcribe = Callable[..., list[Transcript]]

START_S, END_S = 0.3, 0.5
"""How far a segment may begin, and end, from the speech."""
NOISE_S = 40 if thorough() else 20
"""Noise without speech, in seconds: two windows of the model, or one. It is decoded again and again."""


@pytest.fixture(scope="module")
def pipeline() -> Iterator[InProcess]:
    made = InProcess(short_windows=True, threads=2)
    yield made
    made.close()


@pytest.fixture
def transcribe(pipeline: InProcess, tmp_path: Path) -> Transcribe:
    """Transcribes recordings, mono or left and right, together; in English unless told otherwise."""

    def run(*audio: speech.Audio, language: str | None = "en", **options: Any) -> list[Transcript]:
        paths = [tmp_path / f"{number}.wav" for number in range(len(audio))]
        for path, samples in zip(paths, audio, strict=True):
            path.write_bytes(recordings.wav(samples))
        return pipeline.transcribe_all(paths, TranscriptionOptions(**options), [language] * len(audio))

    return run


FOX, COUNT, HELLO = (
    speech.sample("en", "quick_brown_fox"),
    speech.sample("en", "counting"),
    speech.sample("en", "hello_world"),
)


def joined(*pieces: speech.Sample | float) -> speech.Joined:
    """Join samples and seconds of silence in order; the last may be silence."""
    samples, pauses, pause_s = [], [], 0.0
    for piece in pieces:
        if isinstance(piece, float):
            pause_s = piece
        else:
            samples.append(piece)
            pauses.append(pause_s)
            pause_s = 0.0
    made = speech.join(samples, pauses)
    return made._replace(audio=np.concatenate([made.audio, np.zeros(round(pause_s * SAMPLE_RATE), np.float32)]))


def assert_in_place(spans: Sequence[tuple[float, float]], said: speech.Joined) -> None:
    assert len(spans) == len(said.placements), spans
    for (start, end), placed in zip(spans, said.placements, strict=True):
        assert start == pytest.approx(placed.start_s, abs=START_S)
        assert end == pytest.approx(placed.end_s, abs=END_S)


@pytest.mark.parametrize("spoken", [FOX, COUNT, HELLO], ids=lambda one: one.name)
def test_no_word_is_lost_at_any_volume_on_one_channel(transcribe: Transcribe, spoken: speech.Sample) -> None:
    audio = speech.load(spoken.path)
    left_only = [np.stack([audio * (0.3 + 0.03 * step), np.zeros_like(audio)]) for step in range(12)]
    assert [normalise("en", one.text) for one in transcribe(*left_only)] == [normalise("en", spoken.text)] * 12


@pytest.mark.parametrize("channels", [(1, -1), (0, 1), (0, 0, 1, 0, 0, 0)], ids=["opposed", "right", "centre"])
def test_no_word_is_lost_between_channels(transcribe: Transcribe, channels: tuple[int, ...]) -> None:
    audio = speech.load(FOX.path)
    [transcript] = transcribe(np.stack([factor * audio for factor in channels]))
    assert normalise("en", transcript.text) == normalise("en", FOX.text)


@pytest.mark.parametrize(
    "pieces",
    [
        (FOX, FOX),
        (FOX, FOX, FOX, FOX),
        (FOX, 3.0, FOX, 3.0, FOX),
        (HELLO, 0.4, HELLO),
        (HELLO, HELLO, HELLO, HELLO, HELLO, HELLO),
        (FOX, 0.8, HELLO, 0.8, FOX),
        (COUNT, 1.0, COUNT),
    ],
    ids=lambda pieces: "+".join(str(getattr(piece, "name", piece)) for piece in pieces),
)
def test_what_is_said_again_is_written_again(transcribe: Transcribe, pieces: tuple[speech.Sample | float, ...]) -> None:
    said = joined(*pieces)
    [transcript] = transcribe(said.audio)
    # Each for itself: "10. One" would be read as one number.
    written = " ".join(normalise("en", segment.text) for segment in transcript.segments)
    assert written == " ".join(normalise("en", placement.text) for placement in said.placements)


@pytest.mark.parametrize("options", [{}, {"word_timestamps": True}, {"vad_filter": False}], ids=str)
def test_segments_and_cues_lie_where_the_speech_is(transcribe: Transcribe, options: dict[str, bool]) -> None:
    said = joined(HELLO, 10.0, COUNT, 8.0, FOX, 12.0)
    [transcript] = transcribe(said.audio, **options)
    assert_in_place([(segment.start, segment.end) for segment in transcript.segments], said)
    assert_in_place([(cue.start_ms / 1000, cue.end_ms / 1000) for cue in shape_cues(transcript, CueStyle())], said)


def test_clips_lie_where_they_were_cut(transcribe: Transcribe) -> None:
    said = joined(FOX, 10.0, COUNT, 3.0)
    [transcript] = transcribe(said.audio, clip_timestamps=(0.0, 2.9, 12.9, 16.0))
    assert_in_place([(segment.start, segment.end) for segment in transcript.segments], said)


@pytest.mark.parametrize("clips", [(1.868, 1.87), (0.5, 0.5001), (900.0, 901.0)])
def test_clips_too_short_for_a_word_are_empty(transcribe: Transcribe, clips: tuple[float, float]) -> None:
    assert transcribe(speech.load(FOX.path), clip_timestamps=clips)[0].segments == ()


@pytest.mark.parametrize("amplitude", [0.0, 0.003], ids=["silence", "noise"])
def test_without_vad_silence_and_noise_hold_no_text(transcribe: Transcribe, amplitude: float) -> None:
    noise = np.random.default_rng(0).normal(0.0, amplitude, NOISE_S * SAMPLE_RATE).astype(np.float32)
    [transcript] = transcribe(noise, language=None, vad_filter=False)
    assert (transcript.text, transcript.info.language_probability) == ("", 0.0)


def test_without_vad_the_language_is_that_of_the_speech(transcribe: Transcribe) -> None:
    said = joined(45.0, speech.sample("fr", "pangrama"), 1.0, speech.sample("fr", "bonjour_monde"))
    [transcript] = transcribe(said.audio, language=None, vad_filter=False)
    assert transcript.info.language == "fr"
    assert "whisky" in transcript.text
    assert "monde" in transcript.text
