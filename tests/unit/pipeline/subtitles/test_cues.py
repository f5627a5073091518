from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.decoding.transcript import Segment, Transcript, Word
from pipeline.subtitles.cues import Cue, CueStyle, karaoke_frames, shape_cues
from pipeline.subtitles.text import width_of
from tests.support.builders import segment, transcript_of


def spoken(text: str, start: float = 0.0, seconds_a_word: float = 0.4) -> Segment:
    words = tuple(
        Word(start + index * seconds_a_word, start + (index + 1) * seconds_a_word, f" {word}", 0.9)
        for index, word in enumerate(text.split())
    )
    return segment(start, words[-1].end, f" {text}", words)


def times(cues: list[Cue]) -> list[tuple[int, int]]:
    return [(cue.start_ms, cue.end_ms) for cue in cues]


TEXTS = st.one_of(
    st.text(alphabet="abcdefg ,.?!-", max_size=300),
    st.text(alphabet="你好再见，。「」一-二 ab", max_size=120),
    st.text(alphabet="ผมรักประเทศไทยขຂ້ອຍខ្ញុំမြန်မာ👨‍👩‍👧‍👦🇩🇪👍🏽 ", max_size=120),
    st.text(max_size=60),
)
MOMENTS = st.floats(0, 100, allow_nan=False)


@st.composite
def timed_words(draw: st.DrawFn, word: str) -> Word:
    start, end = sorted((draw(MOMENTS), draw(MOMENTS)))
    return Word(start, end, f" {word}", 1.0)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Draw any transcript, even an impossible one: out of order, overlapping, past the end, without duration."""
    segments = []
    for text in draw(st.lists(TEXTS, max_size=8)):
        start, end = sorted((draw(MOMENTS), draw(MOMENTS)))
        words = None
        if draw(st.booleans()):
            words = tuple(draw(timed_words(word)) for word in text.split()[:20])
        segments.append(segment(start, end, text, words))
    return transcript_of(*segments, duration_s=draw(st.one_of(MOMENTS, st.just(0.0), st.floats(0, 0.05))))


STYLES = st.builds(
    CueStyle,
    max_line_width=st.integers(10, 60),
    max_lines=st.integers(1, 3),
    max_duration_s=st.one_of(st.none(), st.floats(0.5, 10)),
)


@given(transcripts(), STYLES)
def test_cues_are_in_order_apart_within_the_media_and_never_empty(heard: Transcript, style: CueStyle) -> None:
    cues = shape_cues(heard, style)
    assert [cue.number for cue in cues] == list(range(1, len(cues) + 1))
    assert all(0 <= cue.start_ms < cue.end_ms <= heard.info.duration * 1000 for cue in cues)
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(cues))
    assert all(cue.text.strip() for cue in cues)


@given(transcripts(), STYLES)
def test_lines_fit(heard: Transcript, style: CueStyle) -> None:
    for cue in shape_cues(heard, style):
        lines = cue.text.split("\n")
        assert len(lines) <= style.max_lines
        assert all((line == line.strip() and width_of(line) > 0) or not width_of(line) for line in lines)
        assert all(width_of(line) <= style.max_line_width for line in lines)
        if style.max_duration_s is not None:
            assert cue.end_ms - cue.start_ms <= style.max_duration_s * 1000


@given(transcripts(), STYLES)
def test_no_text_is_lost_where_there_is_time_to_show_it(heard: Transcript, style: CueStyle) -> None:
    heard = replace(heard, info=replace(heard.info, duration=100.0))
    said = "".join("".join((word.word for word in item.words) if item.words else item.text) for item in heard.segments)
    shown = "".join(cue.text for cue in shape_cues(heard, style))
    assert "".join(shown.split()) == "".join(said.split())


def test_a_segment_that_fits_keeps_its_times_and_text() -> None:
    [cue] = shape_cues(transcript_of(segment(1.2345, 3.0, " Hello there.")), CueStyle())
    assert (cue.start_ms, cue.end_ms, cue.text) == (1234, 3000, "Hello there.")


def test_a_long_segment_is_cut_after_a_sentence() -> None:
    text = "The quick brown fox jumps over the lazy dog, as ever. Then it goes home and sleeps until the next morning."
    cues = shape_cues(transcript_of(spoken(text)), CueStyle())
    assert cues[0].text.replace("\n", " ") == "The quick brown fox jumps over the lazy dog, as ever."
    assert cues[1].start_ms == 4400


def test_a_long_segment_is_cut_at_a_pause() -> None:
    first, second = spoken("one two three four five six seven", 0.0), spoken("eight nine ten eleven twelve", 5.0)
    joined = segment(0.0, second.end, "", (first.words or ()) + (second.words or ()))
    cues = shape_cues(transcript_of(joined), CueStyle(max_line_width=25))
    assert [cue.text.replace("\n", " ") for cue in cues] == [
        "one two three four five six seven",
        "eight nine ten eleven twelve",
    ]
    assert times(cues) == [(0, 2800), (5000, 7000)]


def test_no_cue_goes_across_a_long_pause() -> None:
    before, after = spoken("Hello world"), spoken("one two", start=12.0)
    joined = segment(0.0, 12.8, before.text + after.text, (*(before.words or ()), *(after.words or ())))
    cues = shape_cues(transcript_of(joined), CueStyle())
    assert [(cue.text, cue.start_ms, cue.end_ms) for cue in cues] == [
        ("Hello world", 0, 800),
        ("one two", 12_000, 12_800),
    ]


def test_without_a_better_place_a_segment_is_cut_in_even_shares() -> None:
    cues = shape_cues(transcript_of(spoken("word " * 18)), CueStyle())
    assert [len(cue.pieces) for cue in cues] == [9, 9]


def test_lines_are_of_like_length() -> None:
    [cue] = shape_cues(transcript_of(spoken("a cue of two lines should not end with one lonely word")), CueStyle())
    assert cue.text == "a cue of two lines should\nnot end with one lonely word"


def test_chinese_is_broken_between_characters_but_not_before_a_comma() -> None:
    text = "今天天气很好我们一起去公园散步吧晚上回来吃饭，然后再看一部电影好不好呢我觉得很不错"
    cues = shape_cues(transcript_of(segment(0.0, 8.0, text)), CueStyle(max_line_width=30))
    lines = [line for cue in cues for line in cue.text.split("\n")]
    assert "".join(lines) == text
    assert len(lines) > 2
    assert not any(line.startswith("，") for line in lines)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("ผมรักประเทศไทยมากและอยากไปเที่ยว", ["ผมรักประเทศไทยมาก", "และอยากไปเที่ยว"]),
        ("彼は昨日、東京タワーで友達と会ったそうです。", ["彼は昨日、東京タワーで", "友達と会ったそうです。"]),
        ("我们昨天在北京大学看了一本有意思的书。", ["我们昨天在北京大学", "看了一本有意思的书。"]),
    ],
)
@pytest.mark.parametrize("characters", [0, 1, 3])
def test_scripts_without_blanks_are_broken_between_words(text: str, lines: list[str], characters: int) -> None:
    """Whisper's words may have no times at all, or hold a token of any number of characters each."""
    words = tuple(
        Word(at / 10, (at + characters) / 10, text[at : at + characters], 0.9)
        for at in range(0, len(text) if characters else 0, characters or 1)
    )
    [cue] = shape_cues(transcript_of(segment(0.0, 6.0, text, words or None)), CueStyle(max_line_width=26))
    assert cue.text.split("\n") == lines
    starts = [piece.start_s for piece in cue.pieces]
    assert starts == sorted(starts)


def test_a_phrase_of_several_words_is_timed_from_the_first_to_the_last() -> None:
    words = (
        Word(0.0, 0.4, "言", 0.9),
        Word(0.4, 0.6, "っ", 0.9),
        Word(0.6, 1.0, "た", 0.9),
        Word(2.0, 3.0, "そうです", 0.9),
    )
    [cue] = shape_cues(transcript_of(segment(0.0, 3.0, "", words)), CueStyle())
    assert [(piece.text, piece.start_s, piece.end_s) for piece in cue.pieces] == [
        ("言った", 0.0, 1.0),
        ("そうです", 2.0, 3.0),
    ]


def test_time_is_spread_by_width_where_words_have_none() -> None:
    cues = shape_cues(
        transcript_of(segment(0.0, 10.0, "aaaaaaaaa. bbbbbbbbb.")), CueStyle(max_line_width=10, max_lines=1)
    )
    assert times(cues) == [(0, 5000), (5000, 10000)]


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_a_cue_is_not_shown_longer_than_asked(seconds: float) -> None:
    cues = shape_cues(transcript_of(spoken("word " * 12)), CueStyle(max_duration_s=seconds))
    assert max(end - start for start, end in times(cues)) <= seconds * 1000


def test_cues_that_overlap_give_way_to_the_next() -> None:
    cues = shape_cues(transcript_of(segment(0.0, 3.0, "one"), segment(2.0, 4.0, "two")), CueStyle())
    assert times(cues) == [(0, 2000), (2000, 4000)]


def test_text_past_the_end_of_the_media_is_shown_before_it() -> None:
    cues = shape_cues(transcript_of(segment(9.0, 10.0, "one"), segment(10.5, 11.0, "two"), duration_s=10.0), CueStyle())
    assert times(cues) == [(9000, 9960), (9960, 10000)]


def test_a_segment_without_length_is_shown_for_a_frame() -> None:
    [cue] = shape_cues(transcript_of(segment(1.0, 1.0, "blink")), CueStyle())
    assert (cue.start_ms, cue.end_ms) == (1000, 1040)


def test_segments_without_text_make_no_cue() -> None:
    assert shape_cues(transcript_of(segment(0.0, 1.0, "  "), segment(1.0, 2.0, "")), CueStyle()) == []


def test_a_karaoke_frame_a_word() -> None:
    frames = karaoke_frames(shape_cues(transcript_of(spoken("one two three")), CueStyle()))
    assert [(frame.number, frame.start_ms, frame.end_ms, frame.spoken) for frame in frames] == [
        (1, 0, 400, 0),
        (2, 400, 800, 1),
        (3, 800, 1200, 2),
    ]


def test_words_out_of_order_do_not_turn_time_back() -> None:
    words = (Word(0.0, 1.0, " one", 1.0), Word(2.0, 3.0, " two", 1.0), Word(1.0, 1.5, " three", 1.0))
    frames = karaoke_frames(shape_cues(transcript_of(segment(0.0, 3.0, "one two three", words)), CueStyle()))
    assert times(frames) == [(0, 2000), (2000, 3000)]


@given(transcripts())
def test_karaoke_frames_are_in_order_and_fill_their_cues(heard: Transcript) -> None:
    cues = shape_cues(heard, CueStyle())
    frames = karaoke_frames(cues)
    assert sum(end - start for start, end in times(frames)) == sum(end - start for start, end in times(cues))
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(frames))
