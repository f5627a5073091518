"""Tests of tests.support.distribution."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.distribution import ROOT, SERVICE_TESTS, SERVICES, OneServiceAtATime, use_every_core


def distribution_of(*arguments: str, **options: Any) -> tuple[Any, str]:
    """Return how many processes take the tests of a command line, and how they divide them."""
    chosen = SimpleNamespace(**({"numprocesses": None, "usepdb": False, "dist": "no"} | options))
    config: Any = SimpleNamespace(
        args=[str(ROOT / argument) for argument in arguments],
        option=chosen,
        getoption=lambda name, default=None: getattr(chosen, name, default),
    )
    use_every_core(config)
    return chosen.numprocesses, chosen.dist


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("OMP", "OPENBLAS"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "2")


@pytest.mark.parametrize(
    ("arguments", "dist"),
    [
        (["tests"], "loadfile"),
        (["."], "loadfile"),
        (["tests/contract", "tests/unit"], "loadfile"),
        (["tests/unit"], "worksteal"),
        (["tests/unit/support", "tests/unit/pipeline"], "worksteal"),
    ],
)
def test_folders_of_independent_tests_are_for_every_core(arguments: list[str], dist: str) -> None:
    assert distribution_of(*arguments) == ("logical", dist)


@pytest.mark.parametrize("argument", ["tests/serve", "tests/unit/support/test_distribution.py", str(Path("/"))])
def test_files_and_tests_of_one_service_are_for_one_process(argument: str) -> None:
    assert distribution_of(argument) == (None, "no")


@pytest.mark.parametrize("options", [{"numprocesses": 0}, {"numprocesses": 3}, {"usepdb": True}])
def test_the_command_line_decides(options: dict[str, Any]) -> None:
    assert distribution_of("tests", **options) == (options.get("numprocesses"), "no")


def test_tests_that_start_ray_are_one_unit_of_work_and_other_files_one_each() -> None:
    scheduler = OneServiceAtATime.__new__(OneServiceAtATime)
    units = [scheduler._split_scope(f"{file}::test_a") for file in ("tests/serve/test_b.py", "tests/cluster/test_c.py")]
    assert units == [SERVICES, SERVICES]
    assert scheduler._split_scope("tests/contract/test_d.py::test_a") == "tests/contract/test_d.py"
    assert all((ROOT / name).exists() for name in SERVICE_TESTS)
