from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
from annotated_types import Ge, MaxLen

from deployments.api.request.forms import Form, inlined
from pipeline.domain.tasks.task import Priority
from pipeline.errors import InvalidValue, UnknownOption


@dataclass(frozen=True, kw_only=True)
class Order:
    """A dataclass with a field of every kind."""

    dish: str | None = None
    """What to eat."""
    amount: Annotated[int, Ge(1)] = 1
    """How much of it."""
    spices: Annotated[tuple[float, ...], MaxLen(2)] = (0.5, 1.0)
    """How hot."""
    urgency: Priority = Priority.LOW
    """How soon."""


def _no_meat(dish: str) -> str:
    if dish == "steak":
        raise ValueError("There is no meat")
    return dish.upper()


FORM = Form(Order, checks={"dish": _no_meat})


def test_only_what_is_given_comes_back() -> None:
    assert FORM.parse({"dish": "soup", "amount": "", "spices": "1, 2"}) == {"dish": "SOUP", "spices": (1.0, 2.0)}


def test_limits_and_checks() -> None:
    with pytest.raises(InvalidValue) as caught:
        FORM.parse({"dish": "steak", "amount": "0", "spices": "1,2,3"})
    assert [field for field, _ in caught.value.problems] == ["dish", "amount", "spices"]
    assert caught.value.field == "dish"
    assert caught.value.message.startswith("dish: There is no meat. amount: ")


def test_unknown_names_even_without_value() -> None:
    with pytest.raises(UnknownOption, match=r"'dihs': did you mean dish\?"):
        FORM.parse({"dihs": ""})


def test_its_documentation_is_that_of_the_class() -> None:
    assert FORM.properties() == {
        "dish": {"type": "string", "description": "What to eat."},
        "amount": {"type": "integer", "minimum": 1, "default": 1, "description": "How much of it."},
        "spices": {"type": "string", "default": "0.5,1.0", "description": "How hot."},
        "urgency": {
            "type": "string",
            "enum": ["high", "normal", "low"],
            "default": "low",
            "description": "How soon.",
        },
    }
    assert FORM.parameters()[0] == {
        "name": "dish",
        "in": "query",
        "required": False,
        "description": "What to eat.",
        "schema": {"type": "string"},
    }


def test_a_field_without_default_can_not_be_left_out_of_a_form() -> None:
    @dataclass(frozen=True)
    class Strict:
        must: int
        """There is no telling."""

    with pytest.raises(TypeError, match=r"Strict\.must has no default"):
        Form(Strict)


def test_definitions_are_inlined() -> None:
    schema = {"$defs": {"A": {"type": "string"}}, "items": [{"$ref": "#/$defs/A", "description": "d"}]}
    assert inlined(schema) == {"items": [{"type": "string", "description": "d"}]}
