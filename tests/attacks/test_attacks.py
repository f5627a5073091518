"""Small attacks on a running service: each is survived, and the other client gets its transcript.

The large ones, with their figures, are ``python -m tests.attacks``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.case import Case
from tests.attacks.cases import ALL
from tests.attacks.report import lasting_findings
from tests.attacks.stage import Stage
from tests.support.processes import ROOT

QUICK = [case for case in ALL if case.quick]

pytestmark = pytest.mark.timeout(180, func_only=True)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """One service for all of them, which has to last."""
    with Stage(ROOT, model="tiny.en", small=True) as running:
        yield running


@pytest.mark.parametrize("case", QUICK, ids=[case.name for case in QUICK])
def test_an_attack_is_nobody_elses_trouble(stage: Stage, case: Case) -> None:
    outcome = stage.play(case)
    found = lasting_findings(outcome.case, outcome.observed, outcome.flaws)
    assert not found, f"{found}; {outcome.notes}; {dict(outcome.observed.failures)}"
