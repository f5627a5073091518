from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.decoding.stitching import stitch
from pipeline.domain.decoding.transcript import ChunkResult, LanguageDetection, Word
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from tests.support.builders import segment

OPTIONS = TranscriptionOptions()


def result(index, *segments, language="de", detection=None, audio_s=5.0):
    return ChunkResult(index, audio_s, segments, language, detection)


def test_joins_chunks_in_order_whatever_order_they_come_in():
    transcript = stitch([result(1, segment(5, 9, " there.")), result(0, segment(0, 4, " Hello"))], OPTIONS, 10.0)
    assert transcript.text == "Hello there."
    assert [(one.id, one.start) for one in transcript.segments] == [(1, 0), (2, 5)]
    assert transcript.info.duration_after_vad == 10.0
    assert transcript.info.duration == 10.0


def test_text_has_single_blanks():
    assert stitch([result(0, segment(0, 1, "  a \n b "), segment(1, 2, " c"))], OPTIONS, 9.0).text == "a b c"


def test_nothing_ends_after_the_recording():
    words = (Word(3.0, 12.0, " said", 0.9),)
    [only] = stitch([result(0, segment(3, 12, words=words))], OPTIONS, 10.0).segments
    assert only.end == 10.0
    assert only.words[0].end == 10.0


def test_the_same_words_over_the_same_audio_are_said_once():
    twice = [result(0, segment(0, 5, " and so", seek=0)), result(1, segment(4.5, 6, " and so", seek=450))]
    assert stitch(twice, OPTIONS, 10.0).text == "and so"


def test_words_said_again_later_are_kept():
    again = [result(0, segment(0, 5, " Yes.", seek=0)), result(1, segment(5, 6, " Yes.", seek=500))]
    assert stitch(again, OPTIONS, 10.0).text == "Yes. Yes."


def test_the_language_is_the_first_detection():
    detection = LanguageDetection("fr", 0.8, (("fr", 0.8), ("en", 0.1)))
    info = stitch([result(1, language="fr"), result(0, language="fr", detection=detection)], OPTIONS, 10.0).info
    assert (info.language, info.language_probability) == ("fr", 0.8)
    assert info.all_language_probs == detection.all_probabilities


def test_a_language_that_was_asked_for_is_certain():
    info = stitch([result(0)], TranscriptionOptions(language="de"), 10.0).info
    assert (info.language, info.language_probability, info.all_language_probs) == ("de", 1.0, None)


@pytest.mark.parametrize(
    ("results", "language", "expected"), [([], "ja", "ja"), ([result(0)], None, "de"), ([], None, "en")]
)
def test_without_a_detection_the_language_is_what_is_known(results, language, expected):
    assert stitch(results, OPTIONS, 0.0, language=language).info.language == expected


def test_the_language_of_silence_is_one_that_was_allowed():
    info = stitch([], TranscriptionOptions(languages=("de", "fr")), 3.0).info
    assert (info.language, info.language_probability) == ("de", 0.0)


def test_no_speech_is_an_empty_transcript():
    transcript = stitch([], OPTIONS, 3.0, {"threshold": 0.5})
    assert (transcript.text, transcript.segments, transcript.info.duration_after_vad) == ("", (), 0)
    assert transcript.info.vad_options == {"threshold": 0.5}
    assert transcript.info.transcription_options == OPTIONS.as_dict()


bounds = st.tuples(st.floats(0, 20), st.floats(0.01, 5)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(st.lists(bounds, max_size=4).map(sorted), max_size=4), st.floats(1, 20))
def test_segments_never_overlap_nor_leave_the_recording_nor_lose_text(spans, duration_s):
    results = [
        result(index, *(segment(start, end, f" w{index}.{number}") for number, (start, end) in enumerate(inner)))
        for index, inner in enumerate(spans)
    ]
    segments = stitch(results, OPTIONS, duration_s).segments
    assert [one.id for one in segments] == list(range(1, len(segments) + 1))
    assert len(segments) == sum(map(len, spans))
    assert all(0 <= one.start <= one.end <= duration_s for one in segments)
    assert all(earlier.end <= later.start for earlier, later in pairwise(segments))
