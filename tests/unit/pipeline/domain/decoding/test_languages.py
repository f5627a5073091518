from __future__ import annotations

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.decoding.languages import LANGUAGES, nearest_language, parse_language


def test_they_are_whispers_own() -> None:
    assert set(LANGUAGES) == set(_LANGUAGE_CODES)


@pytest.mark.parametrize("code", LANGUAGES)
def test_each_is_known_by_its_code_its_name_and_as_a_tag(code: str) -> None:
    for text in (code, code.upper(), LANGUAGES[code], LANGUAGES[code].title(), f" {code}-x-any "):
        assert parse_language(text) == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *{"nb": "no", "nob": "no", "nb-NO": "no", "nno": "nn", "no-NO": "no", "norsk": "no"}.items(),
        *{"jv": "jw", "jav": "jw", "iw": "he", "in": "id", "ji": "yi", "fil": "tl", "tgl": "tl", "mo": "ro"}.items(),
        *{"cmn": "zh", "zh-CN": "zh", "zh_TW": "zh", "zh-Hant-HK": "zh", "zh-yue": "yue", "yue-HK": "yue"}.items(),
        *{"pt-BR": "pt", "en_US.UTF-8": "en", "de@euro": "de", "es-419": "es", "sr-Latn-RS": "sr", "sh": "sr"}.items(),
        *{"eng": "en", "deu": "de", "ger": "de", "fra": "fr", "fre": "fr", "zho": "zh", "chi": "zh"}.items(),
        *{
            "ces": "cs",
            "cze": "cs",
            "nld": "nl",
            "dut": "nl",
            "msa": "ms",
            "may": "ms",
            "arb": "ar",
            "arz": "ar",
        }.items(),
        *{"English": "en", "GERMAN": "de", "deutsch": "de", "français": "fr", "francais": "fr"}.items(),
        *{
            "Español": "es",
            "espanol": "es",
            "português": "pt",
            "portugues": "pt",
            "Türkçe": "tr",
            "turkce": "tr",
        }.items(),
        *{
            "日本語": "ja",
            "中文": "zh",
            "粤语": "yue",
            "한국어": "ko",
            "русский": "ru",
            "ไทย": "th",
            "हिन्दी": "hi",
        }.items(),
        *{"mandarin": "zh", "cantonese": "yue", "farsi": "fa", "filipino": "tl", "bokmål": "no"}.items(),
        *{"Chinese (Simplified)": "zh", "simplified chinese": "zh", "English (United States)": "en"}.items(),
        # the other names that Whisper's own command takes
        *{"burmese": "my", "valencian": "ca", "flemish": "nl", "haitian": "ht", "letzeburgesch": "lb"}.items(),
        *{"pushto": "ps", "panjabi": "pa", "moldavian": "ro", "moldovan": "ro", "sinhalese": "si"}.items(),
        ("castilian", "es"),
    ],
)
def test_the_language_that_is_meant(text: str, code: str) -> None:
    assert parse_language(text) == code


@pytest.mark.parametrize("text", ["", " ", "auto", "AUTO", "Auto-Detect", "detect", "und"])
def test_nothing_named_is_to_be_detected(text: str) -> None:
    assert parse_language(text) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("engish", "did you mean en (English)?"),
        ("gremany", "did you mean de (German)?"),
        ("klingon", "use a code such as en, de or zh, or a language's name."),
        ("tlh", "or a language's name."),
        ("xx", "or a language's name."),
        ("mul", "or a language's name."),
        ("English/German", "is not a language"),
        ("en,de", "or a language's name."),
        ("x" * 10_000, "or a language's name."),
        ("Sie sprechen Deutsch", "or a language's name."),
    ],
)
def test_what_names_none_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="is not a language that Whisper knows") as refused:
        parse_language(text)
    assert said in str(refused.value)


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_a_language_or_refused(text: str) -> None:
    try:
        assert parse_language(text) in {None, *LANGUAGES}
    except ValueError as error:
        assert "is not a language that Whisper knows" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("meant", "code"),
    [
        ("german", "de"),
        ("Englisch", "en"),
        ("zh-CN", "zh"),
        ("pt_BR", "pt"),
        ("jp", "ja"),
        ("cn", "zh"),
        ("US", "en"),
        ("klingon", None),
        ("xx", None),
        ("zz", None),
        ("", None),
    ],
)
def test_the_code_that_was_meant(meant: str, code: str | None) -> None:
    assert nearest_language(meant) == code
