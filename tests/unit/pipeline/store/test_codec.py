from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.audio import Chunk, Span
from pipeline.domain.tracks import Track
from pipeline.domain.transcript import ChunkResult, LanguageDetection, Segment, Transcript, TranscriptInfo, Word
from pipeline.store import codec

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
    assert codec.result_of_json(codec.result_to_json(result)) == result


@given(TRANSCRIPTS)
def test_a_transcript_comes_back_as_it_was(transcript: Transcript) -> None:
    assert codec.transcript_of_json(codec.transcript_to_json(transcript)) == transcript


def test_a_transcript_of_before_tracks_were_listed_is_read() -> None:
    kept = json.loads(codec.transcript_to_json(Transcript("", (), TranscriptInfo("zh", 1.0, 1.0, 1.0))))
    del kept["info"]["tracks"]
    assert codec.transcript_of_json(json.dumps(kept)).info.tracks == ()


@given(CHUNKS)
def test_a_chunk_comes_back_as_it_was(chunk: Chunk) -> None:
    assert codec.read_chunk(codec.chunk_row(1, chunk)) == (chunk, None)


def test_json_is_compact() -> None:
    words = (Word(0.0, 0.5, " 你", 0.75), Word(0.5, 1.0, "好", 1.0))
    segment = Segment(1, 0, 0.0, 1.0, " 你好", (1, 2), 0.0, -0.5, 1.0, 0.0, words)

    kept = codec.transcript_to_json(Transcript("你好", (segment,), TranscriptInfo("zh", 1.0, 1.0, 1.0)))

    assert '"words":[[0.0,0.5," 你",0.75],[0.5,1.0,"好",1.0]]' in kept
    assert ": " not in kept.replace(" 你", "")
    assert json.loads(kept)["text"] == "你好"


def test_a_key_is_kept_as_a_digest_of_fixed_length() -> None:
    assert len(codec.key_digest("k" * 10_000)) == 64
    assert codec.key_digest("k") != codec.key_digest("K")


def test_empty_words_are_not_missing_words() -> None:
    segment = Segment(1, 0, 0.0, 1.0, "", (), 0.0, 0.0, 0.0, 0.0, ())
    result = ChunkResult(0, 1.0, (segment, replace(segment, words=None)), "en")

    assert [each.words for each in codec.result_of_json(codec.result_to_json(result)).segments] == [(), None]
