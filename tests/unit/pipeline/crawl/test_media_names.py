import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.crawl.media_names import MAX_NAME, extension_of, file_name, is_page, name_in_url
from tests.support import recordings

MP4 = b"\0\0\0\x20ftypisom" + bytes(100)


@pytest.mark.parametrize(
    ("suffix", "extension"),
    [
        (name, name)
        for name in ("wav", "mp3", "m4a", "mp4", "ogg", "flac", "webm", "aac", "aiff", "avi", "flv", "ts", "au")
    ]
    + [("mkv", "webm")],  # the same container
)
def test_the_bytes_say_what_they_are(suffix: str, extension: str) -> None:
    assert extension_of(recordings.encode(np.zeros(8000, np.int16), suffix)) == extension


@pytest.mark.parametrize("head", [b"", b"\xff", b"hello", b"<html>", bytes(400)])
def test_other_bytes_say_nothing(head: bytes) -> None:
    assert extension_of(head) is None


@pytest.mark.parametrize(
    "head",
    [b"<!DOCTYPE html><html>", b"\xef\xbb\xbf\n <HTML lang=en>", b"<!-- hello --> <head>", b"  <title>A</title>"],
)
def test_a_page_is_known_by_its_first_bytes(head: bytes) -> None:
    assert is_page(head)


@pytest.mark.parametrize("head", [b"", MP4, b"ID3<html>", b"<svg>", b"<htmlish>"])
def test_what_is_not_a_page_is_none(head: bytes) -> None:
    assert not is_page(head)


@pytest.mark.parametrize(
    ("title", "head", "claimed", "name"),
    [
        ("A talk", MP4, "mp3", "A talk.mp4"),
        ("A talk", b"unknown", "OPUS", "A talk.opus"),
        ("A talk", b"unknown", "no such/thing", "A talk"),
        ("../../etc/passwd", MP4, "", "etc passwd.mp4"),
        ('a:b*c?"d"<e>|\\f\0\n', MP4, "", "a b c d e f.mp4"),
        ("", MP4, "", "recording.mp4"),
        ("...", MP4, "", "recording.mp4"),
        ("狐狸跳 #替身", MP4, "", "狐狸跳 #替身.mp4"),
        ("می\u200cخواهم 👩🏽\u200d🚀", MP4, "", "می\u200cخواهم 👩🏽\u200d🚀.mp4"),
        ("👨‍👩‍👧‍👦" * 40, MP4, "", "👨‍👩‍👧‍👦" * 17 + ".mp4"),
    ],
)
def test_names_are_safe_and_end_as_the_bytes_deserve(title: str, head: bytes, claimed: str, name: str) -> None:
    assert file_name(title, head, claimed) == name


@given(st.text(), st.binary(max_size=20), st.text(max_size=10))
def test_no_title_makes_a_name_that_is_not_one(title: str, head: bytes, claimed: str) -> None:
    name = file_name(title, head, claimed)
    assert 0 < len(name) <= MAX_NAME + 9
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)
    assert not set(name) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert not set(name) & set('<>:"/\\|?*')
    assert not name.startswith((".", " "))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example/talks/one%20talk.mp3?x=1#y", ("one talk", "mp3")),
        ("https://a.example/download", ("download", "")),
        ("https://a.example/", ("", "")),
        ("https://a.example/v1.0 final cut", ("v1.0 final cut", "")),
        ("https://a.example/%2e%2e%2fetc", ("../etc", "")),
    ],
)
def test_a_url_may_name_its_file(url: str, expected: tuple[str, str]) -> None:
    assert name_in_url(url) == expected
