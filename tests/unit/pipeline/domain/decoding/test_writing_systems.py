from pipeline.domain.decoding.writing_systems import CharacterCounts, count_characters, has_words, is_punctuation


def test_letters_and_digits_of_any_script_are_words() -> None:
    assert all(map(has_words, ("a", "9", " ...7", "天", "ก", "नमस्ते", "ё")))
    assert not any(map(has_words, ("", "...", " -- ", "…。", "♪", "\u200b")))


def test_symbols_are_more_than_punctuation() -> None:
    assert all(map(is_punctuation, ("", " ... ... ", "…。", "\u200b", "—")))
    assert not any(map(is_punctuation, (" ♪♪", " €", "👍", "a", "5")))


def test_characters_are_counted_by_what_they_stand_for() -> None:
    assert count_characters(" Room 42, 天地!") == CharacterCounts(letters=4, syllables=2, digits=2)
