from __future__ import annotations

import pytest

from pipeline.domain.text.wording import nearest, nearest_name, sentence, with_suggestion


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


NAMES = ("status", "language", "priority", "engine_name", "limit", "offset", "order", "model", "beam_size", "task_type")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("statu", "status"),
        ("Status", "status"),
        ("stauts", "status"),
        ("beem_size", "beam_size"),
        ("lmit", "limit"),
        ("odrer", "order"),
        ("enginename", "engine_name"),
        ("lang", "language"),
        ("language_code", "language"),
        ("model_name", "model"),
        ("page", None),
        ("sort", None),
        ("file_name", None),
        ("name", None),
        ("type", None),
        ("o", None),
    ],
)
def test_a_name_is_suggested_only_where_that_is_plausible(given: str, meant: str | None) -> None:
    assert nearest_name(given, NAMES) == meant


def test_the_beginning_of_two_names_suggests_neither() -> None:
    assert nearest_name("created", ("created_after_", "created_before_")) is None
