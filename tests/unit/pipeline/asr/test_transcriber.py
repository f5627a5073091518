import asyncio
import threading
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest

from pipeline.asr.transcriber import LocalTranscriber, chunk_samples
from pipeline.domain.audio.spans import SAMPLE_RATE, Chunk, Span, part_key
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.errors import DecodingFailed, ReplicaLost
from pipeline.ports import ChunkFailure, Unit
from pipeline.settings import VadSettings
from pipeline.testing.fake_engine import FakeEngine
from pipeline.testing.memory_media import MemoryMediaStore
from tests.support.builders import blocks

PREFIX = "task"
PART_S = 40


def span(start_s, end_s):
    return Span(round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE))


def chunk(index, *bounds, part=0):
    return Chunk(index, part, part * PART_S * SAMPLE_RATE, tuple(span(*pair) for pair in bounds))


CHUNKS = (chunk(0, (1, 3), (5, 7)), chunk(1, (10, 14)), chunk(2, (41, 44), part=1))


@pytest.fixture
async def store():
    """A media store with two parts of prepared audio, whose samples give their position."""
    made = MemoryMediaStore()
    for part in range(2):
        ramp = (np.arange(PART_S * SAMPLE_RATE) // 160 + 10_000 * part).astype("<i2").tobytes()
        await made.write(part_key(PREFIX, part), blocks(ramp))
    return made


@pytest.fixture
def transcriber(start, store):
    made = []

    def make(engine, **settings):
        made.append(LocalTranscriber(store, engine, start(engine, **settings)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def unit(*chunks, language="en", previous_tokens=(), rank=1, **options):
    chosen = TranscriptionOptions(**options)
    return Unit(1, PREFIX, chunks or CHUNKS, chosen, language, rank, 0.0, previous_tokens)


async def collect(stream):
    return sorted([answer async for answers in stream for answer in answers], key=lambda answer: answer.index)


async def test_a_unit_gets_heartbeats_while_others_are_decoded(transcriber, monkeypatch):
    monkeypatch.setattr("pipeline.asr.transcriber.HEARTBEAT_S", 0.005)
    turns = threading.Semaphore(0)
    engine = FakeEngine(sleep=lambda _: turns.acquire(timeout=10))
    one = transcriber(engine, max_batch_size=1)
    urgent = asyncio.ensure_future(collect(one.transcribe(unit(rank=0))))
    while not engine.batches:
        await asyncio.sleep(0)
    async with aclosing(one.transcribe(unit(rank=2))) as waiting:
        assert await anext(waiting) == ()
        for _ in CHUNKS:
            heartbeat = asyncio.ensure_future(anext(waiting))
            while one._batcher.stats().waiting < len(CHUNKS):
                await asyncio.sleep(0)
            turns.release()
            assert await heartbeat == []
        turns.release(len(CHUNKS))
        assert len(await collect(waiting)) == len(await urgent) == len(CHUNKS)


async def test_without_progress_there_is_no_heartbeat(transcriber, monkeypatch):
    monkeypatch.setattr("pipeline.asr.transcriber.HEARTBEAT_S", 0.005)
    engine = FakeEngine()
    engine.pause()
    stream = transcriber(engine).transcribe(unit())
    await anext(stream)
    silent = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.1)
    assert not silent.done()
    engine.resume()
    assert len([*await silent, *await collect(stream)]) == len(CHUNKS)  # the first may be a heartbeat


async def test_every_chunk_is_answered_on_the_original_timeline(transcriber):
    answers = await collect(transcriber(FakeEngine()).transcribe(unit()))
    assert [(one.index, one.audio_s, one.language, one.attempts) for one in answers] == [
        (0, 4.0, "en", 1),
        (1, 4.0, "en", 1),
        (2, 3.0, "en", 1),
    ]
    assert [(s.start, s.end, s.seek) for one in answers for s in one.segments] == [
        (1.0, 7.0, 100),
        (10.0, 14.0, 1000),
        (41.0, 44.0, 4100),
    ]


async def test_a_unit_s_chunks_share_a_batch(transcriber):
    engine = FakeEngine()
    await collect(transcriber(engine).transcribe(unit()))
    assert [len(batch) for batch in engine.batches] == [3]


async def test_the_first_chunk_tells_the_language_of_the_others(transcriber):
    engine = FakeEngine()
    answers = await collect(transcriber(engine).transcribe(unit(language=None, languages=("de",))))
    assert [[item.language for item in batch] for batch in engine.batches] == [[None], ["de", "de"]]
    assert [answer.detection is not None for answer in answers] == [True, False, False]
    assert {answer.language for answer in answers} == {"de"}


async def test_if_the_first_chunk_fails_the_next_one_tells(transcriber):
    engine = FakeEngine(fault=lambda item: RuntimeError() if item.features[0, 0] < 0.01 else None)
    answers = await collect(transcriber(engine).transcribe(unit(language=None)))
    assert [type(answer) for answer in answers] == [ChunkFailure, ChunkResult, ChunkResult]
    assert [answer.detection is not None for answer in answers[1:]] == [True, False]


@pytest.mark.parametrize("language", [None, "de"])
async def test_multilingual_detects_on_every_chunk(transcriber, language):
    engine = FakeEngine()
    answers = await collect(transcriber(engine).transcribe(unit(language=language, multilingual=True)))
    assert len(engine.batches) == 1
    assert all(answer.detection for answer in answers)


async def test_conditioned_chunks_follow_each_other_with_the_text_before(transcriber):
    engine = FakeEngine()
    stream = transcriber(engine).transcribe(unit(previous_tokens=(5, 6), condition_on_previous_text=True))
    answers = await collect(stream)
    assert [batch[0].previous_tokens for batch in engine.batches] == [
        (5, 6),
        (5, 6, *answers[0].tokens),
        (5, 6, *answers[0].tokens, *answers[1].tokens),
    ]


async def test_previous_text_is_ignored_unless_conditioned_on(transcriber):
    engine = FakeEngine()
    await collect(transcriber(engine).transcribe(unit(previous_tokens=(5, 6))))
    assert {item.previous_tokens for item in engine.batches[0]} == {()}


async def test_the_first_temperature_is_the_first_tried(transcriber):
    engine = FakeEngine()
    answers = await collect(transcriber(engine).transcribe(unit(temperature=(0.7,))))
    assert {item.temperature for item in engine.batches[0]} == {0.7}
    assert answers[0].segments[0].temperature == 0.7


async def test_audio_that_is_missing_or_cut_short_fails_its_chunk_alone(transcriber):
    missing, short = chunk(8, (81, 82), part=2), chunk(9, (79, 81), part=1)
    answers = await collect(transcriber(FakeEngine()).transcribe(unit(CHUNKS[0], missing, short)))
    assert [type(answer) for answer in answers] == [ChunkResult, ChunkFailure, ChunkFailure]
    assert {answer.code for answer in answers[1:]} == {"prepared_audio_lost"}
    assert not any(PREFIX in answer.message for answer in answers[1:])


async def test_made_up_text_between_silences_is_dropped_when_asked(transcriber):
    def made_up(_, decoded):
        words = tuple(replace(word, probability=0.01) for word in decoded.segments[0].words)
        return replace(decoded, segments=(replace(decoded.segments[0], words=words),))

    replica = transcriber(FakeEngine(result=made_up))
    kept = await collect(replica.transcribe(unit(CHUNKS[2], word_timestamps=True)))
    dropped = await collect(
        replica.transcribe(unit(CHUNKS[2], word_timestamps=True, hallucination_silence_threshold=1.0))
    )
    assert (len(kept[0].segments), len(dropped[0].segments)) == (1, 0)


async def until_entered(engine):
    assert await asyncio.to_thread(engine.entered.wait, 10)


async def test_closing_the_stream_drops_what_waits(transcriber):
    def hold_the_next(_, decoded):
        if len(engine.batches) == 1:
            engine.pause()
        return decoded

    engine = FakeEngine(result=hold_the_next)
    replica = transcriber(engine, max_batch_size=1)
    stream = replica.transcribe(unit())
    assert await anext(stream) == ()  # accepted
    await anext(stream)
    await until_entered(engine)
    await stream.aclose()
    assert replica._batcher.stats().waiting == 0
    engine.resume()
    await collect(replica.transcribe(unit(CHUNKS[2], temperature=(0.5,))))
    assert [batch[0].temperature for batch in engine.batches] == [0.0, 0.0, 0.5]


async def test_a_dead_engine_ends_the_unit(transcriber):
    replica = transcriber(FakeEngine(fault=lambda _: ReplicaLost("The GPU has failed.")))
    with pytest.raises(ReplicaLost):
        await collect(replica.transcribe(unit()))
    assert await replica.replica_count() == 0
    with pytest.raises(ReplicaLost):
        await replica.describe()


async def test_describes_what_runs_with_the_batch_size_in_force(transcriber):
    info = await transcriber(FakeEngine(), max_batch_size=5).describe()
    assert (info.engine, info.max_batch_size) == ("fake", 5)


async def test_warming_up_decodes(transcriber):
    engine = FakeEngine()
    transcriber(engine).warm_up()
    assert len(engine.batches) == 1


async def test_a_model_that_can_t_decode_does_not_warm_up(transcriber):
    with pytest.raises(DecodingFailed):
        await transcriber(FakeEngine(fault=lambda _: RuntimeError("no such instruction"))).warm_up()


def test_spans_are_laid_end_to_end():
    cut = Chunk(0, 0, 100, (Span(110, 113), Span(120, 122)))
    pcm = np.arange(110, 122, dtype="<i2").tobytes()
    assert chunk_samples(pcm, cut).tolist() == [110, 111, 112, 120, 121]


async def test_a_chunk_that_vad_has_cut_holds_speech(start, store):
    engine = FakeEngine()
    replica = LocalTranscriber(store, engine, start(engine), find_speech=lambda *_: ())
    await collect(replica.transcribe(unit(CHUNKS[0])))
    [[item]] = engine.batches
    assert item.speech == (span(0, 4),)
    replica.close()


async def test_speech_is_found_by_the_service_s_rules_and_the_task_s(start, store):
    rules = []
    engine = FakeEngine()
    replica = LocalTranscriber(
        store,
        engine,
        start(engine),
        vad=VadSettings(threshold=0.3),
        find_speech=lambda samples, given: rules.append(given) or (Span(0, len(samples)),),
    )
    await collect(replica.transcribe(unit(CHUNKS[0], vad_min_silence_duration_ms=700)))
    assert (rules[0].threshold, rules[0].min_silence, rules[0].speech_pad) == (0.3, 11_200, 1_600)
    replica.close()


async def test_speech_is_looked_for_in_every_chunk(start, store):
    engine = FakeEngine()
    replica = LocalTranscriber(
        store, engine, start(engine), find_speech=lambda samples, _: (Span(0, len(samples) // 2),)
    )
    await collect(replica.transcribe(unit(CHUNKS[1], vad_filter=False)))
    [[item]] = engine.batches
    assert item.speech == (span(0, 2),)
    replica.close()


@pytest.mark.parametrize(("has_text", "language"), [(False, ""), (True, "en")])
async def test_silence_does_not_tell_the_language(start, store, has_text, language):
    engine = FakeEngine(result=lambda _, decoded: decoded if has_text else replace(decoded, segments=()))
    replica = LocalTranscriber(store, engine, start(engine), find_speech=lambda *_: ())
    [answer] = await collect(replica.transcribe(unit(CHUNKS[1], language=None, vad_filter=False)))
    assert (answer.language, answer.detection is not None) == (language, has_text)
    replica.close()


async def test_a_chunk_in_which_nothing_is_said_leaves_the_language_open(transcriber):
    def silent(item, decoded):
        return replace(decoded, segments=()) if item.features[0, 0] < 0.01 else decoded

    engine = FakeEngine(result=silent)
    answers = await collect(transcriber(engine).transcribe(unit(language=None)))
    assert answers[0].segments == ()
    assert {item.language for item in engine.batches[-1]} == {"en"}
    assert next(batch for batch in engine.batches if batch[0].features[0, 0] >= 0.01)[0].language is None


async def test_audio_too_short_for_a_word_is_empty(transcriber):
    engine = FakeEngine()
    [answer] = await collect(transcriber(engine).transcribe(unit(chunk(0, (1, 1.002)), vad_filter=False)))
    assert (answer.segments, answer.audio_s, engine.batches) == ((), 0.002, [])


async def test_words_are_given_only_where_they_were_asked_for(transcriber):
    replica = transcriber(FakeEngine())
    [without] = await collect(replica.transcribe(unit(CHUNKS[2])))
    [given] = await collect(replica.transcribe(unit(CHUNKS[2], word_timestamps=True)))
    assert without.segments[0].words is None
    assert len(given.segments[0].words) == 2
