from __future__ import annotations

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from pipeline.domain.languages import LANGUAGES, nearest_language


def test_they_are_whispers_own() -> None:
    assert set(LANGUAGES) == set(_LANGUAGE_CODES)


@pytest.mark.parametrize(
    ("meant", "code"), [("german", "de"), ("Englisch", "en"), ("zh-CN", "zh"), ("pt_BR", "pt"), ("klingon", None)]
)
def test_the_code_that_was_meant(meant: str, code: str | None) -> None:
    assert nearest_language(meant) == code
