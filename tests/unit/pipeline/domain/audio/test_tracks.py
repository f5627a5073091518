from __future__ import annotations

import pytest

from pipeline.domain.audio.tracks import Track, candidates, is_auxiliary_title, known_language, mark_chosen, short_code
from pipeline.domain.decoding.languages import LANGUAGES
from pipeline.errors import NoSuchTrack

FILM = (
    Track(0, "ac3", "eng", "Director's commentary", 2, auxiliary=True),
    Track(1, "dts", "deu", None, 6),
    Track(2, "aac", "en-US", None, 2, default=True),
    Track(3, None, "eng", decodable=False),
)


@pytest.mark.parametrize(
    ("tracks", "order"),
    [
        (FILM, [2, 1, 0, 3]),
        ((Track(0), Track(1)), [0, 1]),
        ((Track(0), Track(1, default=True)), [1, 0]),
        ((Track(0, default=True, silent=True), Track(1, silent=False)), [1, 0]),
        ((Track(0, default=True, auxiliary=True), Track(1)), [1, 0]),
        ((Track(0, auxiliary=True), Track(1, silent=True)), [0, 1]),
        ((Track(0, decodable=False, default=True), Track(1, silent=True, auxiliary=True)), [1, 0]),
    ],
)
def test_the_best_track_comes_first(tracks: tuple[Track, ...], order: list[int]) -> None:
    assert [track.index for track in candidates(tracks)] == order


@pytest.mark.parametrize(
    ("wanted", "order"),
    [
        ("0", [0]),
        ("3", [3]),
        (" 1 ", [1]),
        ("en", [2, 0, 3]),
        ("eng", [2, 0, 3]),
        ("EN", [2, 0, 3]),
        ("en-GB", [2, 0, 3]),
        ("de", [1]),
        ("ger", [1]),
        ("deu", [1]),
    ],
)
def test_a_track_is_named_by_index_or_language(wanted: str, order: list[int]) -> None:
    assert [track.index for track in candidates(FILM, wanted)] == order


@pytest.mark.parametrize("wanted", ["4", "fr", "fra", "und", "-1", "english please", "²", ""])
def test_a_track_that_is_not_there_is_refused_with_those_that_are(wanted: str) -> None:
    with pytest.raises(NoSuchTrack) as caught:
        candidates(FILM, wanted)
    assert "0 (ac3, eng, “Director's commentary”, commentary or the like)" in caught.value.message
    assert "2 (aac, en-US, default), 3 (unknown codec, eng)." in caught.value.message


def test_the_chosen_track_is_marked() -> None:
    assert [track.chosen for track in mark_chosen(FILM, 1)] == [False, True, False, False]


@pytest.mark.parametrize(
    "codes", ["en eng EN en-US en_GB", "de deu ger", "zh zho chi cmn zh-Hans", "fr fra fre", "jw jv jav"]
)
def test_codes_of_one_language_are_one(codes: str) -> None:
    assert len({short_code(code) for code in codes.split()}) == 1


def test_every_language_of_whisper_s_is_known_by_itself() -> None:
    assert len({short_code(code) for code in LANGUAGES}) == len(LANGUAGES)


@pytest.mark.parametrize("code", [None, "", "und", "UND", " mul", "zxx"])
def test_a_code_that_says_nothing_is_no_language(code: str | None) -> None:
    assert known_language(code) is None


@pytest.mark.parametrize(
    ("title", "auxiliary"),
    [
        ("Commentary", True),
        ("Audio commentary with the cast", True),
        ("Director's Comments", True),
        ("Kommentar des Regisseurs", True),
        ("Audio Description", True),
        ("AD - English", True),
        ("导演评论", True),
        ("English 5.1", False),
        ("Stereo", False),
        ("Radio", False),
        ("Adagio", False),
        (None, False),
    ],
)
def test_a_title_tells_a_commentary(title: str | None, auxiliary: bool) -> None:
    assert is_auxiliary_title(title) is auxiliary
