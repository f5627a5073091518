from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.subtitles.text import hard_cut, split_text, width_of


@pytest.mark.parametrize(
    ("text", "units"),
    [
        (" Hello,  world\n", ["Hello,", "world"]),
        ("你好。再见！", ["你", "好。", "再", "见！"]),
        ("彼は「はい」と言った", ["彼", "は", "「は", "い」", "と", "言っ", "た"]),
        ("我用iPhone拍照", ["我", "用", "iPhone", "拍", "照"]),
        ("안녕하세요 여러분", ["안녕하세요", "여러분"]),
        ("   ", []),
    ],
)
def test_text_is_cut_where_a_line_may_be_broken(text: str, units: list[str]) -> None:
    assert [unit for unit, _ in split_text(text)] == units


def test_a_blank_belongs_to_the_unit_after_it() -> None:
    assert list(split_text(" a 你好 b")) == [("a", True), ("你", True), ("好", False), ("b", True)]
    assert list(split_text("a", after_blank=True)) == [("a", True)]
    assert list(split_text("a")) == [("a", False)]


@given(st.text())
def test_no_character_is_lost(text: str) -> None:
    assert "".join(unit for unit, _ in split_text(text)) == "".join(text.split())


@given(st.text(min_size=1), st.integers(2, 20))
def test_what_is_wider_than_a_line_is_cut_to_fit(text: str, max_width: int) -> None:
    parts = list(hard_cut(text, max_width))
    assert "".join(parts) == text
    assert all(width_of(part) <= max_width for part in parts)


def test_marks_stay_with_their_character() -> None:
    assert list(hard_cut("e\u0301" * 3, 2)) == ["e\u0301e\u0301", "e\u0301"]


def test_wide_characters_take_two_columns() -> None:
    assert width_of("ab你e\u0301") == 5
