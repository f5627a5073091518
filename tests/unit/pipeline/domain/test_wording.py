from __future__ import annotations

import pytest

from pipeline.domain.wording import nearest, sentence, with_suggestion


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("It failed", "It failed."),
        ("It failed.", "It failed."),
        ("It failed..", "It failed."),
        ("It failed. ", "It failed."),
        ("Did you mean x?", "Did you mean x?"),
        ("Did you mean x?.", "Did you mean x?"),
        ("Stop!", "Stop!"),
        ("use en (English)", "use en (English)."),
        ("", "."),
    ],
)
def test_a_sentence_ends_with_one_mark(text: str, ended: str) -> None:
    assert sentence(text) == ended


def test_what_was_meant_is_named() -> None:
    assert with_suggestion("There is no dihs", "dish", "see the menu") == "There is no dihs: did you mean dish?"
    assert with_suggestion("There is no dihs", None, "see the menu") == "There is no dihs: see the menu."


def test_the_nearest() -> None:
    assert nearest("Dihs", ("dish", "fork"), cutoff=0.5) == "dish"
    assert nearest("spoon" * 1000, ("dish", "fork"), cutoff=0.5) is None
