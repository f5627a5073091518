"""Real speech through a real model: what the engine and the batcher make of it, against faster-whisper itself."""

from __future__ import annotations

from difflib import SequenceMatcher

import numpy as np
import pytest
from faster_whisper import WhisperModel

from pipeline.asr.batcher import MicroBatcher
from pipeline.asr.engine import DecodeItem
from pipeline.asr.faster_whisper.whisper_engine import FasterWhisperEngine
from pipeline.asr.model_files import resolve
from pipeline.domain.audio.spans import SAMPLE_RATE
from pipeline.domain.decoding.transcription_options import TaskType, TranscriptionOptions
from pipeline.errors import DecodingFailed
from pipeline.settings import BatchSettings
from tests.support import speech
from tests.support.accuracy import ErrorCount, count_errors

TIMEOUT_S = 120.0
WORD_TOLERANCE_S = 0.3


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    return resolve("base", cache_dir=tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def engine(files):
    return FasterWhisperEngine(files, device="cpu", compute_type="int8", cpu_threads=1, short_windows=True)


@pytest.fixture(scope="session")
def plain(files):
    return WhisperModel(str(files.path), device="cpu", compute_type="int8", cpu_threads=1)


@pytest.fixture
def batcher(engine):
    made = MicroBatcher(engine, BatchSettings(batch_wait_s=0)).start()
    yield made
    made.close()


@pytest.fixture
def item(engine):
    def make(samples, language=None, *, full_window=False, **options):
        chosen = TranscriptionOptions(**options)
        return DecodeItem(
            features=engine.prepare(samples),
            options=chosen,
            language=language,
            temperature=chosen.temperature[0],
            full_window=full_window,
        )

    return make


def decode(batcher, items):
    chunks = batcher.submit(items, rank=1, start_tag=0.0)
    return [chunk.future.exception(TIMEOUT_S) or chunk.future.result() for chunk in chunks]


def text(outcome):
    return "".join(segment.text for segment in outcome.segments).strip()


def test_nine_languages_in_shared_batches_are_heard_as_well_as_alone(batcher, item, plain, corpus):
    samples = [speech.of_language(language)[2] for language in sorted({sample.lang for sample in corpus})]
    outcomes = decode(batcher, [item(speech.load(one.path), one.lang, temperature=(0.0,)) for one in samples])
    ours = theirs = ErrorCount()
    for sample, outcome in zip(samples, outcomes, strict=True):
        segments, _ = plain.transcribe(speech.load(sample.path), language=sample.lang, temperature=0.0)
        ours += count_errors(sample.lang, sample.text, text(outcome))
        theirs += count_errors(sample.lang, sample.text, "".join(segment.text for segment in segments))
    assert len(samples) == 9
    assert ours.errors <= theirs.errors + 3  # of 96; the benchmark measures it closely
    assert batcher.stats().batches < len(samples)


def test_mixed_languages_tasks_and_options_are_decoded_as_if_alone(engine, item):
    mixed = [
        item(speech.load(sample.path), sample.lang, full_window=True, task_type=task, word_timestamps=words)
        for sample, task, words in (
            (speech.of_language("en")[2], TaskType.TRANSCRIBE, True),
            (speech.of_language("fr")[2], TaskType.TRANSCRIBE, False),
            (speech.of_language("fr")[2], TaskType.TRANSLATE, True),
            (speech.of_language("zh")[2], TaskType.TRANSCRIBE, True),
        )
    ]
    assert len({engine.batch_key(one) for one in mixed}) == 1
    for together, one in zip(engine.decode(mixed), mixed, strict=True):
        [alone] = engine.decode([one])
        assert together.text == alone.text
        assert together.avg_logprob == pytest.approx(alone.avg_logprob, abs=0.02)
        assert [words(segment) for segment in together.segments] == [words(segment) for segment in alone.segments]


def words(segment):
    return segment.words and [(word.word, pytest.approx(word.start, abs=0.05)) for word in segment.words]


def test_words_are_where_faster_whisper_finds_them(engine, item, plain):
    samples = [speech.of_language(language)[2] for language in ("en", "fr", "pt")]
    batch = [item(speech.load(sample.path), sample.lang, word_timestamps=True) for sample in samples]
    for sample, decoded in zip(samples, engine.decode(batch), strict=True):
        segments, _ = plain.transcribe(speech.load(sample.path), language=sample.lang, word_timestamps=True)
        theirs = [word for segment in segments for word in segment.words]
        ours = [word for segment in decoded.segments for word in segment.words]
        # Another window may change a word in ten; the times of those both heard are compared.
        matcher = SequenceMatcher(None, [word.word for word in ours], [word.word for word in theirs], autojunk=False)
        same = [(ours[a + i], theirs[b + i]) for a, b, size in matcher.get_matching_blocks() for i in range(size)]
        assert len(same) >= 0.8 * len(theirs)
        for mine, other in same:
            assert mine.start == pytest.approx(other.start, abs=WORD_TOLERANCE_S)
            assert mine.end == pytest.approx(other.end, abs=WORD_TOLERANCE_S)


def test_languages_are_detected_in_one_batch(engine, item):
    spoken = {
        sample.lang: sample for sample in (speech.of_language(name)[2] for name in ("en", "fr", "it", "ja", "zh"))
    }
    decoded = engine.decode([item(speech.load(sample.path)) for sample in spoken.values()])
    assert [one.language for one in decoded] == list(spoken)
    assert all(one.detection.probability > 0.5 for one in decoded)
    assert sum(probability for _, probability in decoded[0].detection.all_probabilities) == pytest.approx(1, abs=0.01)


def test_detection_keeps_to_the_languages_allowed(engine, item):
    samples = speech.load(speech.of_language("fr")[2].path)
    [decoded] = engine.decode([item(samples, languages=("de", "es"))])
    assert decoded.language in {"de", "es"}
    assert {language for language, _ in decoded.detection.all_probabilities} == {"de", "es"}


def test_languages_the_model_does_not_know_are_refused_alone(engine, item):
    samples = speech.load(speech.of_language("fr")[2].path)
    refused, allowed, heard = engine.decode(
        [item(samples, "xx"), item(samples, languages=("xx",)), item(samples, "fr")]
    )
    assert isinstance(refused, DecodingFailed)
    assert isinstance(allowed, DecodingFailed)
    assert "whisky" in heard.text


def test_translation_is_english(engine, item):
    samples = speech.load(speech.of_language("fr")[0].path)
    [decoded] = engine.decode([item(samples, "fr", task_type=TaskType.TRANSLATE)])
    assert "hello" in decoded.text.lower() or "good" in decoded.text.lower()


def test_an_initial_prompt_and_hot_words_shape_the_text(engine, item):
    samples = speech.load(speech.of_language("en")[0].path)
    plain_text, prompted = (
        engine.decode([item(samples, "en", **options)])[0].text
        for options in ({}, {"initial_prompt": "one two three four five six"})
    )
    assert prompted != plain_text
    assert "three" in prompted.lower()


def test_prompts_of_any_length_leave_room_for_the_text(engine, item):
    samples = speech.load(speech.of_language("en")[2].path)
    flooded = item(samples, "en", hotwords="lazy dog " * 200, initial_prompt="quick fox " * 200)
    assert isinstance(engine.decode([flooded])[0].text, str)


def test_one_bad_chunk_fails_alone(batcher, item):
    samples = speech.load(speech.of_language("en")[2].path)
    bad = DecodeItem(features=np.zeros((7, 300), dtype=np.float32), options=TranscriptionOptions(), language="en")
    first, failed, last = decode(batcher, [item(samples, "en"), bad, item(samples, "en")])
    assert isinstance(failed, DecodingFailed)
    assert text(first) == text(last) != ""
    assert batcher.healthy


def test_a_moment_of_noise_holds_no_text(batcher, item):
    noise = np.random.default_rng(0).normal(0, 0.02, SAMPLE_RATE // 10).astype(np.float32)
    [outcome] = decode(batcher, [item(noise, "en")])
    assert outcome.segments == ()


def test_silence_is_told_by_its_no_speech_probability(batcher, item):
    silence = np.zeros(3 * SAMPLE_RATE, dtype=np.float32)
    [outcome] = decode(batcher, [item(silence, "en", log_prob_threshold=None)])
    assert outcome.segments == ()


def test_speech_after_a_long_pause_is_heard_as_well(batcher, item):
    first, second = (speech.of_language("en")[index] for index in (2, 1))
    joined = speech.join([first, second], [0.0, 6.0])
    [outcome] = decode(batcher, [item(joined.audio, "en", word_timestamps=True)])
    assert "dog" in text(outcome).lower()
    assert "world" in text(outcome).lower()
    last = outcome.segments[-1].words[-1]
    assert last.end == pytest.approx(joined.placements[1].end_s, abs=2 * WORD_TOLERANCE_S)
