"""The distribution of tests over the machine's cores, by pytest-xdist.

A folder of tests runs in as many processes as there are cores, unless the command line decides (``-n0``: in one).
A single file ends before further processes have started, and the tests of one service take turns anyway.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests.support import processes

ROOT = processes.ROOT.resolve()
UNIT_TESTS = ROOT / "tests" / "unit"
SERVICE_TESTS = (
    "tests/attacks/",
    "tests/chaos/test_cluster.py",
    "tests/chaos/test_events.py",
    "tests/chaos/test_kills.py",
    "tests/chaos/test_links.py",
    "tests/cluster/",
    "tests/e2e/test_single_machine.py",
    "tests/serve/",
)
"""Tests that start Ray. Two clusters at a time are too much for a machine of two cores."""
SERVICES = "services"


class OneServiceAtATime(LoadFileScheduling):  # type: ignore[misc]  # it has no types
    """A scheduler that gives a whole file to one process, and all tests that start Ray to the same one."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return SERVICES if file.startswith(SERVICE_TESTS) else file


def use_every_core(config: pytest.Config) -> None:
    """Distribute the tests if the command line names folders with independent tests, and leaves the choice open."""
    undecided = config.getoption("numprocesses", 0) is None and not config.getoption("usepdb")
    in_worker = hasattr(config, "workerinput")
    folders = [Path(argument).resolve() for argument in config.args]
    if in_worker or not undecided or not all(map(_has_independent_tests, folders)):
        return
    config.option.numprocesses = "logical"
    if all(folder.is_relative_to(UNIT_TESTS) for folder in folders):
        config.option.dist = "worksteal"
        for library in ("OMP", "OPENBLAS"):  # threads of one process would wait for the other processes
            os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    else:
        config.option.dist = "loadfile"
        config.option.loadscopereorder = False  # the services come first: they take longest


def _has_independent_tests(path: Path) -> bool:
    if not path.is_dir() or not path.is_relative_to(ROOT):
        return False
    return not f"{path.relative_to(ROOT).as_posix()}/".startswith(SERVICE_TESTS)


def scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Return the scheduler for tests that are distributed by file; other ways of distributing are pytest-xdist's."""
    return OneServiceAtATime(config, log) if config.getoption("dist") == "loadfile" else None
