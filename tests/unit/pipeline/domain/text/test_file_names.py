from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.text.file_names import MAX_FILE_NAME, plain_file_name, without_invisible
from pipeline.domain.text.graphemes import graphemes, shortened

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    "name",
    [
        "می\u200cخواهم.mp3",  # Persian, "I want": without the non-joiner it is misspelled
        "क्\u200dष.wav",  # Devanagari half form
        "ක්\u200dරමය.ogg",  # Sinhala
        "അവന്\u200d.mp3",  # Malayalam: the joiner shapes the letter before it
        "👩🏽\u200d🚀 ❤️\u200d🔥.mp4",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f.mp4",
        "会議\u3000録音.m4a",
        "Screen Recording at 9.41.10\u202fAM.mov",
        "\u0604٢٠٢٤.mp3",
        "\U0001fae9.mp3",  # newer than Python's tables
        "talk.v2.tar.gz",
        ".hidden",
    ],
)
def test_what_means_something_stays(name: str) -> None:
    assert plain_file_name(name) == name


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a/b\\c.mp3", "c.mp3"),
        ("a\u202egpj.mp3", "agpj.mp3"),
        ("a\u2066b\u2069\u200e\u200f.mp3", "ab.mp3"),
        ("a\r\nb\x00\x1b\x7f\x85\u2028.mp3", "ab.mp3"),
        ("\ufeffa\u200b\u2060\u00adb.mp3", "ab.mp3"),
        ("a\ud800b\udfff.mp3", "ab.mp3"),
        ("a\ufffe\U0010ffff\ufdd0.mp3", "a.mp3"),
        ("\u200d\u200ca\u200d\u200d\u200db\u200d.mp3\u200c", "a\u200db.mp3"),
        ("a\U000e0061\U000e0062.mp3", "a.mp3"),
        ("e\u0301.mp3", "\u00e9.mp3"),
        ("  a.mp3 ", "a.mp3"),
        ("..", ""),
        (".", ""),
        ("/", ""),
        ("", ""),
    ],
)
def test_what_can_not_be_seen_goes(name: str, kept: str) -> None:
    assert plain_file_name(name) == kept


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("x" * 400 + ".mp3", "x" * 251 + ".mp3"),
        ("👨‍👩‍👧‍👦" * 100 + ".mp4", "👨‍👩‍👧‍👦" * 35 + ".mp4"),
        ("🇩🇪" * 200, "🇩🇪" * 127),
        ("កម្ពុជា" * 100 + ".wav", "កម្ពុជា" * 35 + "ក" + "ម្ពុ" + ".wav"),
        ("x" * 300 + ".no extension at all", "x" * 255),
        ("x." + "y" * 300, "x." + "y" * 253),
        ("e" + "\u0301\u0302" * 300 + ".mp3", "\u00e9" + "\u0302\u0301" * 125 + ".mp3"),
    ],
    ids=["latin", "family", "flags", "khmer", "no extension", "long extension", "one cluster"],
)
def test_a_long_name_is_cut_between_clusters_and_keeps_its_extension(name: str, kept: str) -> None:
    assert plain_file_name(name) == kept


@given(ANY_TEXT)
def test_any_text_becomes_a_name(text: str) -> None:
    name = plain_file_name(text)
    assert len(name) <= MAX_FILE_NAME
    assert name == name.strip()
    name.encode()
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)
    assert not set(name) & {*"/\\", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
    assert plain_file_name(name) == name


def test_what_is_left_out_may_leave_a_blank() -> None:
    assert without_invisible("a\x00b\u202ec\u200dd", instead=" ") == "a b c\u200dd"


@given(ANY_TEXT, st.integers(1, 20))
def test_clusters_are_all_of_a_text_and_stay_whole(text: str, limit: int) -> None:
    clusters = list(graphemes(text))
    assert "".join(clusters) == text
    cut = shortened(text, limit)
    assert len(cut) <= limit
    assert text.startswith(cut)
    assert len(cut) == limit or cut == text or len(cut) + len(clusters[len(list(graphemes(cut)))]) > limit
