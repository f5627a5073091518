from __future__ import annotations

import math
from collections import Counter

import pytest

from tests.attacks.case import Case, Scene
from tests.attacks.cases import ALL
from tests.attacks.observe import Observed
from tests.attacks.report import HEADERS, findings, lasting_findings, row


async def _nothing(scene: Scene) -> None:
    await scene.hold()


CASE = Case("nothing", "nothing", _nothing, max_process_growth_mib=20.0)
CALM = Observed([0.01] * 200, [0.5, 0.6], growth_mib={"Ingress": 5.0}, total_growth_mib=9.0)


def test_what_holds_is_said_so() -> None:
    assert findings(CASE, CALM, (), 0.5) == []
    cells = row(CASE, CALM, ["seen"], (), 0.5)
    assert len(cells) == len(HEADERS)
    assert cells[1] == "10 ms / 10 ms / 10 ms (0 of 200)"
    assert cells[4] == "500 ms / 600 ms (0 of 2)"
    assert cells[-1] == "holds"


@pytest.mark.parametrize(
    ("observed", "found"),
    [
        (Observed([0.01] * 99 + [math.inf], [0.5]), ["health"]),
        (Observed([0.01] * 98 + [1.1] * 2, [0.5]), ["health"]),
        (Observed([0.01], [0.5, 2.6]), ["clip"]),
        (Observed([0.01], [0.5, math.inf]), ["clips lost", "clip"]),
        (Observed([0.01], [0.5], total_growth_mib=257.0), ["memory"]),
        (Observed([0.01], [0.5], growth_mib={"Splitter": 21.0}), ["Splitter grew by 21 MiB"]),
        (Observed([0.01], [0.5], disk_mib=513.0), ["disk"]),
        (Observed([0.01], [0.5], lost=Counter({"ProxyActor": 1})), ["processes died"]),
    ],
)
def test_what_does_not_hold_is_named(observed: Observed, found: list[str]) -> None:
    assert findings(CASE, observed, (), 0.5) == found


def test_what_a_busy_machine_may_cause_is_no_finding_of_a_test() -> None:
    slow = Observed([3.0, math.inf], [20.0])
    assert lasting_findings(CASE, slow, ["an attack got through"]) == ["an attack got through"]


def test_cases_are_told_apart() -> None:
    names = [case.name for case in ALL]
    assert len(set(names)) == len(names)
    assert {case.way for case in ALL} <= {"upload", "url", "summary", "callback", "openai"}
