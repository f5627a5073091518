"""The contract of engines on which the batcher relies: of the shipped fake and of a real model alike."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.asr.engine import FULL_WINDOW_FRAMES, DecodeItem, Engine
from pipeline.asr.engine_loading import load_engine
from pipeline.domain.audio.spans import SAMPLE_RATE, Span
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.errors import DecodingFailed
from pipeline.settings import AsrSettings
from pipeline.testing.fake_engine import FakeEngine
from tests.support import speech
from tests.support.builders import words_of
from tests.support.decodings import decode_all
from tests.support.speech import Audio


@pytest.fixture(scope="module", params=["fake", "tiny.en"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    if request.param == "fake":
        return FakeEngine()
    return load_engine(AsrSettings(model=request.param), device="cpu", cache_dir=tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def items(engine: Engine) -> list[DecodeItem]:
    return [item(engine, speech.load(sample.path)) for sample in speech.of_language("en")]


def item(
    engine: Engine, samples: Audio, *, language: str | None = "en", full_window: bool = False, **options: Any
) -> DecodeItem:
    chosen = TranscriptionOptions(**options)
    return DecodeItem(
        features=engine.prepare(samples),
        options=chosen,
        language=language,
        temperature=chosen.temperature[0],
        full_window=full_window,
    )


def test_it_says_what_it_is(engine: Engine) -> None:
    assert engine.info.device == "cpu"
    assert "en" in engine.info.languages


def test_features_are_as_long_as_the_audio(engine: Engine) -> None:
    prepared = item(engine, np.zeros(3 * SAMPLE_RATE, dtype=np.float32))
    assert prepared.duration_s == 3.0
    assert prepared.slice(Span(SAMPLE_RATE, 3 * SAMPLE_RATE)).duration_s == 2.0


@pytest.mark.parametrize("samples", [np.zeros(1), np.full(SAMPLE_RATE, np.nan)])
def test_audio_that_no_model_could_hear_is_refused(engine: Engine, samples: Audio) -> None:
    with pytest.raises(DecodingFailed):
        engine.prepare(samples.astype(np.float32))


def test_every_item_is_answered_in_order(engine: Engine, items: list[DecodeItem]) -> None:
    decoded = decode_all(engine, items)
    alone = [decode_all(engine, [one])[0] for one in items]
    assert [one.text for one in decoded] == [one.text for one in alone]


def test_segments_lie_within_the_audio(engine: Engine, items: list[DecodeItem]) -> None:
    for one, decoded in zip(items, decode_all(engine, items), strict=True):
        assert all(0 <= segment.start < segment.end <= one.duration_s + 2 for segment in decoded.segments)


def test_words_make_up_the_text(engine: Engine) -> None:
    sample = speech.of_language("en")[0]
    [decoded] = decode_all(engine, [item(engine, speech.load(sample.path), word_timestamps=True)])
    words = [word for segment in decoded.segments for word in words_of(segment)]
    assert "".join(word.word for word in words).split() == decoded.text.split()
    assert all(word.start <= word.end for word in words)


def test_a_window_is_never_shorter_for_more_items(engine: Engine, items: list[DecodeItem]) -> None:
    together = engine.window_frames(items)
    assert together >= max(engine.window_frames([one]) for one in items)
    assert together < FULL_WINDOW_FRAMES


def test_the_full_window_is_given_on_request_and_told(engine: Engine) -> None:
    sample = speech.of_language("en")[0]
    wanted = item(engine, speech.load(sample.path), full_window=True)
    assert engine.window_frames([wanted]) == FULL_WINDOW_FRAMES
    assert decode_all(engine, [wanted])[0].full_window


def test_what_can_t_share_a_batch_has_another_key(engine: Engine, items: list[DecodeItem]) -> None:
    samples = speech.load(speech.of_language("en")[0].path)
    assert len({engine.batch_key(one) for one in items}) == 1
    different: tuple[dict[str, Any], ...] = ({}, {"beam_size": 1}, {"temperature": (0.5,)})
    keys = {engine.batch_key(item(engine, samples, **options)) for options in different}
    assert len(keys) == 3


def test_the_temperature_is_the_item_s(engine: Engine) -> None:
    sample = speech.of_language("en")[0]
    [decoded] = decode_all(engine, [item(engine, speech.load(sample.path), temperature=(0.4,))])
    assert decoded.temperature == 0.4
    assert {segment.temperature for segment in decoded.segments} == {0.4}


def test_decoded_again_from_what_was_encoded_it_says_the_same(engine: Engine, items: list[DecodeItem]) -> None:
    [once, *_] = decode_all(engine, items)
    again = replace(items[0], encoding=once.encoding)
    assert engine.window_frames([again]) == engine.window_frames(items if once.encoding else items[:1])
    assert decode_all(engine, [again])[0].text == once.text
