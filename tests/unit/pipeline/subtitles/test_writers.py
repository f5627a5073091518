from __future__ import annotations

import json

import pysubs2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.decoding.transcript import Segment, Transcript, TranscriptInfo, Word
from pipeline.errors import InvalidValue
from pipeline.subtitles.cues import CueStyle, shape_cues
from pipeline.subtitles.writers import FORMATS, write_subtitles
from tests.support.builders import segment


def spoken_segment(start: float, end: float, text: str, *, timed: bool = False) -> Segment:
    words = None
    if timed:
        each = (end - start) / len(text.split())
        words = tuple(
            Word(start + index * each, start + (index + 1) * each, f" {word}", 0.9)
            for index, word in enumerate(text.split())
        )
    return segment(start, end, text, words, tokens=(50364,), id=1)


def transcript(*segments: Segment, duration: float = 7200.0) -> Transcript:
    text = " ".join(item.text.strip() for item in segments)
    return Transcript(text, segments, TranscriptInfo("en", 1.0, duration, duration))


EMPTY = transcript()
TWO = transcript(spoken_segment(0.0, 1.5, " Hello <there> & all"), spoken_segment(3661.25, 3662.0, " Bye!"))
TIMED = transcript(spoken_segment(0.0, 1.0, " Hello there", timed=True))


def test_srt() -> None:
    assert write_subtitles(TWO, "srt", CueStyle()) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello <there> & all\n\n2\n01:01:01,250 --> 01:01:02,000\nBye!\n\n"
    )


def test_vtt_escapes() -> None:
    assert write_subtitles(TWO, "vtt", CueStyle()) == (
        "WEBVTT\n\n1\n00:00:00.000 --> 00:00:01.500\nHello &lt;there&gt; &amp; all\n\n"
        "2\n01:01:01.250 --> 01:01:02.000\nBye!\n\n"
    )


def test_ass() -> None:
    script = pysubs2.SSAFile.from_string(write_subtitles(TWO, "ass", CueStyle()), "ass")
    assert [(event.start, event.end, event.text) for event in script] == [
        (0, 1500, "Hello <there> & all"),
        (3661250, 3662000, "Bye!"),
    ]


def test_ass_text_can_open_no_tags() -> None:
    written = write_subtitles(transcript(spoken_segment(0.0, 1.0, r"{\b1}bold \N break")), "ass", CueStyle())
    assert written.rstrip().endswith("\\{\\\u2060b1\\}bold \\\u2060N break")


def test_lrc_puts_each_cue_on_one_line() -> None:
    text = " a cue of two lines should not end with one lonely word"
    written = write_subtitles(transcript(spoken_segment(61.239, 65.0, text)), "lrc", CueStyle())
    assert written == f"[01:01.23]{text.strip()}\n"


def test_txt_and_tsv_list_segments() -> None:
    assert write_subtitles(TWO, "txt", CueStyle()) == "Hello <there> & all\nBye!\n"
    assert write_subtitles(TWO, "tsv", CueStyle()) == (
        "start\tend\ttext\n0\t1500\tHello <there> & all\n3661250\t3662000\tBye!\n"
    )


def test_json_is_what_whisper_tools_read() -> None:
    written = json.loads(write_subtitles(TIMED, "json", CueStyle()))
    assert written["text"] == "Hello there"
    assert written["language"] == "en"
    [event] = pysubs2.load_from_whisper(written)
    assert (event.start, event.end, event.text) == (0, 1000, "Hello there")
    assert written["segments"][0]["words"][1] == {"start": 0.5, "end": 1.0, "word": " there", "probability": 0.9}


@pytest.mark.parametrize(
    ("output_format", "written"),
    [("srt", ""), ("vtt", "WEBVTT\n\n"), ("txt", ""), ("lrc", ""), ("tsv", "start\tend\ttext\n")],
)
def test_silence_is_a_valid_empty_file(output_format: str, written: str) -> None:
    assert write_subtitles(EMPTY, output_format, CueStyle(highlight_words=True)) == written


def test_silence_is_a_valid_empty_script() -> None:
    assert list(pysubs2.SSAFile.from_string(write_subtitles(EMPTY, "ass", CueStyle()), "ass")) == []
    assert json.loads(write_subtitles(EMPTY, "json", CueStyle()))["segments"] == []


@pytest.mark.parametrize(
    ("output_format", "marked"),
    [
        ("srt", "00:00:00,500 --> 00:00:01,000\nHello <u>there</u>"),
        ("vtt", "00:00:00.500 --> 00:00:01.000\nHello <u>there</u>"),
        ("ass", r"{\k50}Hello{\k50} there"),
        ("lrc", "[00:00.00]<00:00.00>Hello <00:00.50>there"),
    ],
)
def test_words_are_marked_as_they_are_spoken(output_format: str, marked: str) -> None:
    assert marked in write_subtitles(TIMED, output_format, CueStyle(highlight_words=True))


def test_words_without_times_can_not_be_marked() -> None:
    with pytest.raises(InvalidValue, match="word_timestamps=true") as caught:
        write_subtitles(TWO, "srt", CueStyle(highlight_words=True))
    assert caught.value.field == "highlight_words"


SENTENCES = st.text(alphabet="abc 你好，。<>&{}\\'\"\n\t-", min_size=1, max_size=150)


@given(st.lists(SENTENCES, max_size=5), st.sampled_from(["srt", "vtt", "ass"]), st.booleans())
def test_a_parser_finds_every_cue_where_it_was_written(texts: list[str], output_format: str, karaoke: bool) -> None:
    segments = [
        spoken_segment(index * 3.0, index * 3.0 + 2.5, text, timed=karaoke)
        for index, text in enumerate(texts)
        if text.split()
    ]
    heard = transcript(*segments, duration=15.0)
    written = write_subtitles(heard, output_format, CueStyle(highlight_words=karaoke))
    parsed = pysubs2.SSAFile.from_string(written, output_format)
    cues = shape_cues(heard, CueStyle())
    assert len(parsed) == len(cues) or karaoke
    assert all(0 <= event.start < event.end <= 15_000 for event in parsed)
    assert {cue.start_ms for cue in cues if not cue.start_ms % 10} <= {event.start for event in parsed}


def test_every_format_says_what_it_is() -> None:
    assert FORMATS["srt"].media_type == "text/srt; charset=utf-8"
    assert FORMATS["vtt"].media_type == "text/vtt; charset=utf-8"
    assert {"srt", "vtt", "ass", "lrc", "txt", "tsv", "json"} == set(FORMATS)
