"""Tests of deployments.security.confinement_check."""

from __future__ import annotations

import logging

import pytest

from deployments.security.confinement_check import check_confinement
from pipeline.domain.confinement_level import Confinement, ConfinementLevel
from pipeline.errors import ConfigurationError

ALL = Confinement(True, True, True, True, True, True)
NO_LANDLOCK = Confinement(False, True, True, False, True, True)


def test_what_holds_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_confinement("decoder", ALL, ConfinementLevel.FULL)
    [record] = caplog.records
    assert record.getMessage() == "confinement of the decoder: full"


def test_what_does_not_hold_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    check_confinement("extractor", NO_LANDLOCK, ConfinementLevel.PARTIAL)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "taken over, it could change files, signal other processes" in record.getMessage()


def test_less_than_required_is_refused_in_a_sentence() -> None:
    with pytest.raises(
        ConfigurationError, match=r"confinement\.required is full, and on this node .* is partial"
    ) as it:
        check_confinement("decoder", NO_LANDLOCK, ConfinementLevel.FULL)
    assert it.value.message.endswith(".")


def test_nothing_required_starts_anywhere() -> None:
    check_confinement("decoder", Confinement(), ConfinementLevel.NONE)
