from pipeline.domain.decoding.speaking_rate import has_plausible_pace
from pipeline.domain.decoding.transcript import Word


def words(text: str, seconds_a_word: float) -> list[Word]:
    return [
        Word(at * seconds_a_word, (at + 1) * seconds_a_word, f" {word}", 0.9) for at, word in enumerate(text.split())
    ]


def test_speech_is_paced() -> None:
    assert has_plausible_pace(words("hello world " * 6, 0.3))
    assert has_plausible_pace(words("1 2 3 4 5 6 7 8 9 10", 0.25))
    assert has_plausible_pace(words("天 地 玄 黄", 0.15))


def test_a_loop_has_no_time_for_its_words() -> None:
    assert not has_plausible_pace(words("hello world " * 40, 0.08))
    assert not has_plausible_pace(words("8 " * 100, 0.05))
    assert not has_plausible_pace(words("天 地 " * 50, 0.04))


def test_a_few_short_words_are_an_alignment_s_doing() -> None:
    assert has_plausible_pace([*words("one two three four five six seven eight", 0.3), Word(2.4, 2.42, " nine", 0.9)])


def test_a_word_longer_than_any_is_a_loop() -> None:
    assert has_plausible_pace([Word(0.0, 4.0, " Donaudampfschifffahrtsgesellschaftskapitän", 0.9)])
    assert not has_plausible_pace([Word(0.0, 4.0, " புரா" + "னின்" * 20, 0.9)])


def test_without_words_nothing_is_known() -> None:
    assert not has_plausible_pace([])
