"""Tests of pipeline.domain.confinement_level."""

from __future__ import annotations

import pytest

from pipeline.domain.confinement_level import DONE, Confinement, ConfinementLevel, confinement_of

ALL = Confinement(True, True, True, True, True, True)


def test_a_part_holds_if_every_act_was_refused() -> None:
    results = {"filesystem": {"read": "EPERM", "write": "EACCES"}, "signals": {"kill": "EPERM", "ptrace": DONE}}
    assert confinement_of(results) == Confinement(filesystem=True)


@pytest.mark.parametrize("result", ["ENOSYS", "ENODEV"])
def test_what_a_kernel_does_not_have_proves_nothing(result: str) -> None:
    assert confinement_of({"memory": {"one": result, "two": "ENOMEM"}}).memory
    assert not confinement_of({"memory": {"one": result}}).memory


def test_a_part_that_was_not_tried_does_not_hold() -> None:
    assert confinement_of({}) == Confinement()


def test_levels() -> None:
    assert ALL.level is ConfinementLevel.FULL
    assert Confinement(network=True).level is ConfinementLevel.PARTIAL
    assert Confinement().level is ConfinementLevel.NONE
    assert ALL.missing == ()
    assert Confinement(True, True, True, True, True).missing == ("memory",)


@pytest.mark.parametrize(
    ("level", "required", "enough"),
    [
        ("full", "full", True),
        ("partial", "full", False),
        ("partial", "partial", True),
        ("none", "none", True),
        ("none", "partial", False),
        ("full", "none", True),
    ],
)
def test_a_level_satisfies_lower_ones(level: str, required: str, enough: bool) -> None:
    assert ConfinementLevel(level).satisfies(ConfinementLevel(required)) is enough
