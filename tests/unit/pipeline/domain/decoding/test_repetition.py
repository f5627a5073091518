import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.decoding.repetition import PHRASE_LIMIT, WORD_LIMIT, has_repetition_loop

words = st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=6)


@pytest.mark.parametrize(
    "text",
    [
        "no no no no no no",
        "I see. I see. I see. I see.",
        "So the point is this: you know what, you know what, you know what, you know what",
        "1, 2, 1, 2, 1, 2, 1, 2",
        "-0-0-0-0-0-0",
        "谢谢大家谢谢大家谢谢大家谢谢大家",
        "今天天气很好哈哈哈哈哈哈哈",
        "ご視聴ありがとうございましたご視聴ありがとうございましたご視聴ありがとうございましたご視聴ありがとうございました",
        "नमस्ते दुनिया नमस्ते दुनिया नमस्ते दुनिया नमस्ते दुनिया",
    ],
)
def test_finds_what_is_said_three_times_too_often(text: str) -> None:
    assert has_repetition_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?!",
        "no, no, no",
        "Row, row, row your boat, gently down the stream.",
        "Thank you. Thank you. Thank you.",
        "one two three four five six seven eight nine ten",
        "ha ha ha ha ha",
        "哈哈哈哈",
        "一二三四五六七八九十。",
        "天地玄黄宇宙洪荒日月盈昃辰宿列张。",
        "very, very, very good and very, very, very bad",
    ],
)
def test_leaves_what_people_say(text: str) -> None:
    assert not has_repetition_loop(text)


@given(st.lists(words, min_size=2, max_size=6), st.integers(PHRASE_LIMIT, 8), st.lists(words), st.lists(words))
def test_finds_a_loop_of_any_phrase_anywhere(
    phrase: list[str], times: int, before: list[str], after: list[str]
) -> None:
    assert has_repetition_loop(" ".join([*before, *phrase * times, *after]))


@given(st.lists(words, unique=True, max_size=60))
def test_text_without_repetition_has_no_loop(unique: list[str]) -> None:
    assert not has_repetition_loop(" ".join(unique))


@given(st.integers(1, 12))
def test_one_word_loops_from_its_limit_on(times: int) -> None:
    assert has_repetition_loop(" ".join(["well"] * times)) == (times >= WORD_LIMIT)
