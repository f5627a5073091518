from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.api.response.task_record import encode_record
from pipeline.domain.audio.spans import Chunk, Span
from pipeline.domain.audio.tracks import Track
from pipeline.domain.decoding.transcript import (
    ChunkResult,
    LanguageDetection,
    Segment,
    Transcript,
    TranscriptInfo,
    Word,
)
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.summaries.summary import (
    Chapter,
    StructuredSummary,
    Summary,
    SummaryFormat,
    SummaryOptions,
    TokenUsage,
)
from pipeline.domain.tasks.task import NewTask, Status
from pipeline.store.rows import chunk_codec, summary_codec, task_codec, transcript_codec
from pipeline.store.rows.compact_json import to_json
from pipeline.store.tables import TASKS

FLOATS = st.floats(allow_nan=False)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
WORDS = st.builds(Word, FLOATS, FLOATS, TEXTS, FLOATS)
SEGMENTS = st.builds(
    Segment,
    id=st.integers(),
    seek=st.integers(),
    start=FLOATS,
    end=FLOATS,
    text=TEXTS,
    tokens=st.lists(st.integers(), max_size=4).map(tuple),
    temperature=FLOATS,
    avg_logprob=FLOATS,
    compression_ratio=FLOATS,
    no_speech_prob=FLOATS,
    words=st.none() | st.lists(WORDS, max_size=3).map(tuple),
)
SEGMENT_TUPLES = st.lists(SEGMENTS, max_size=3).map(tuple)
PAIRS = st.lists(st.tuples(TEXTS, FLOATS), max_size=3).map(tuple)
DETECTIONS = st.builds(LanguageDetection, TEXTS, FLOATS, PAIRS)
RESULTS = st.builds(
    ChunkResult,
    index=st.integers(),
    audio_s=FLOATS,
    segments=SEGMENT_TUPLES,
    language=TEXTS,
    detection=st.none() | DETECTIONS,
    attempts=st.integers(1, 9),
)
TRACKS = st.builds(Track, st.integers(), st.none() | TEXTS, silent=st.none() | st.booleans(), chosen=st.booleans())
INFOS = st.builds(
    TranscriptInfo,
    TEXTS,
    FLOATS,
    FLOATS,
    FLOATS,
    st.none() | PAIRS,
    st.dictionaries(TEXTS, st.integers() | TEXTS | st.none(), max_size=3),
    st.dictionaries(TEXTS, FLOATS, max_size=3),
    st.lists(TRACKS, max_size=3).map(tuple),
)
TRANSCRIPTS = st.builds(Transcript, TEXTS, SEGMENT_TUPLES, INFOS)
SAMPLES = st.integers(0, 2**40)
SPANS = st.tuples(SAMPLES, SAMPLES).map(lambda ends: Span(*sorted(ends)))
CHUNKS = st.builds(Chunk, st.integers(0, 10**6), st.integers(0, 10**6), SAMPLES, st.lists(SPANS, max_size=4).map(tuple))


@given(RESULTS)
def test_a_result_comes_back_as_it_was(result: ChunkResult) -> None:
    assert chunk_codec.result_of_json(chunk_codec.result_to_json(result)) == result


@given(TRANSCRIPTS)
def test_a_transcript_comes_back_as_it_was(transcript: Transcript) -> None:
    assert transcript_codec.transcript_of_json(transcript_codec.transcript_to_json(transcript)) == transcript


def test_a_transcript_of_before_tracks_were_listed_is_read() -> None:
    kept = json.loads(transcript_codec.transcript_to_json(Transcript("", (), TranscriptInfo("zh", 1.0, 1.0, 1.0))))
    del kept["info"]["tracks"]
    assert transcript_codec.transcript_of_json(json.dumps(kept)).info.tracks == ()


@given(CHUNKS)
def test_a_chunk_comes_back_as_it_was(chunk: Chunk) -> None:
    assert chunk_codec.read_chunk(chunk_codec.chunk_row(1, chunk)) == (chunk, None)


def test_json_is_compact() -> None:
    words = (Word(0.0, 0.5, " 你", 0.75), Word(0.5, 1.0, "好", 1.0))
    segment = Segment(1, 0, 0.0, 1.0, " 你好", (1, 2), 0.0, -0.5, 1.0, 0.0, words)

    kept = transcript_codec.transcript_to_json(Transcript("你好", (segment,), TranscriptInfo("zh", 1.0, 1.0, 1.0)))

    assert '"words":[[0.0,0.5," 你",0.75],[0.5,1.0,"好",1.0]]' in kept
    assert ": " not in kept.replace(" 你", "")
    assert json.loads(kept)["text"] == "你好"


def test_a_key_is_kept_as_a_digest_of_fixed_length() -> None:
    assert len(task_codec.key_digest("k" * 10_000)) == 64
    assert task_codec.key_digest("k") != task_codec.key_digest("K")


def test_empty_words_are_not_missing_words() -> None:
    segment = Segment(1, 0, 0.0, 1.0, "", (), 0.0, 0.0, 0.0, 0.0, ())
    result = ChunkResult(0, 1.0, (segment, replace(segment, words=None)), "en")

    assert [each.words for each in chunk_codec.result_of_json(chunk_codec.result_to_json(result)).segments] == [
        (),
        None,
    ]


# --- what can't be read -----------------------------------------------------------------------------------------------

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.datetimes()
    | ANY_JSON.map(json.dumps)
)
NOW = datetime(2025, 1, 1, tzinfo=UTC)
ROW = dict.fromkeys(column.name for column in TASKS.columns) | task_codec.new_task_row(NewTask(media_prefix="a"), NOW)
ROW |= {"id": 7, "transcript": None}


@given(st.dictionaries(st.sampled_from(sorted(ROW)), ANYTHING, max_size=5))
def test_any_row_is_read_and_can_be_shown(rubbish: dict[str, object]) -> None:
    task = task_codec.read_task(ROW | rubbish)
    encode_record(task)
    if task.defect is not None:
        assert task.defect.column in rubbish
        assert task.defect.newer or task.status.finished


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(TranscriptionOptions.__dataclass_fields__, ANY_JSON)))
def test_options_are_read_as_they_were_or_not_at_all(stored: dict[str, object]) -> None:
    task = task_codec.read_task(ROW | {"options": json.dumps(stored)})
    assert (task.defect is None) or task.options == TranscriptionOptions()
    assert task_codec.read_task(ROW | {"options": json.dumps(task.options.as_dict())}).defect is None


@given(st.builds(TranscriptionOptions, language=TEXTS, beam_size=st.integers(1, 20), word_timestamps=st.booleans()))
def test_options_come_back_as_they_were(options: TranscriptionOptions) -> None:
    restored = task_codec.options_of_json(to_json(options.as_dict()))
    assert restored == options
    assert hash(restored) == hash(options)


@pytest.mark.parametrize("options", [SummaryOptions(), SummaryOptions(summary_format=SummaryFormat.STRUCTURED)])
def test_summary_options_come_back_as_they_were(options: SummaryOptions) -> None:
    assert summary_codec.summary_options_of_json(to_json(options.as_dict())) == options


def test_a_summary_comes_back_as_it_was() -> None:
    parts = StructuredSummary("T", "S", (Chapter(1.5, "A", "a"),), ("do",), ("k", "l"))
    summary = Summary(
        text="T",
        language="en",
        model="m",
        created_at=NOW,
        completion_id="c",
        parts=parts,
        usage=TokenUsage(3, 10, None),
    )
    for each in (summary, replace(summary, parts=None, cost=0.5)):
        row = ROW | summary_codec.summary_columns(each)
        assert task_codec.read_task(row).summary.result == each


def test_options_of_before_some_existed_are_read() -> None:
    assert task_codec.options_of_json("{}") == TranscriptionOptions()
    assert task_codec.options_of_json('{"beam_size":2}') == TranscriptionOptions(beam_size=2)


def test_a_completed_task_keeps_its_transcript_whatever_else_is_damaged() -> None:
    transcript = Transcript("Hello.", (), TranscriptInfo("en", 1.0, 1.0, 1.0))
    done = ROW | {"status": "completed", "transcript": transcript_codec.transcript_to_json(transcript)}
    for column in ("options", "tracks", "summary", "created_at"):
        task = task_codec.read_task(done | {column: "{"})
        assert (task.status, task.result) == (Status.COMPLETED, transcript)
        assert task.error is not None
    damaged = task_codec.read_task(done | {"transcript": "{"})
    assert (damaged.status, damaged.result) == (Status.FAILED, None)
    assert damaged.error is not None
    assert damaged.error.code == "record_unreadable"
