"""The fixtures of every test, and the surroundings in which all of them run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import Scheduling

from tests.support import distribution, processes, speech, thoroughness
from tests.support.mariadb import MariaDbServer, running_mariadb

thoroughness.load_profile()


gc.disable()  # what imports make is no garbage


def pytest_collection_finish() -> None:
    """Spare the collector all that was imported: it would look through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


def pytest_sessionfinish() -> None:
    """Collect once what the tests have left: pytest would five times more, and the interpreter twice, for 3 s."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Use every core."""
    distribution.use_every_core(config)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Keep tests together that share what takes long to start."""
    return distribution.scheduler(config, log)


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing a test starts touches the user's data, Ray's token file, or a host that is not this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MURMURATION_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session")
def corpus() -> tuple[speech.Sample, ...]:
    """Every recording with reference text."""
    return speech.corpus()


@pytest.fixture
def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on."""
    return processes.free_port()


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDbServer]:
    """A running server; without MariaDB the test is skipped, or fails where ``MURMURATION_REQUIRE_MARIADB=1``."""
    with running_mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show the seconds of recovery that tests have measured. They are printed, not asserted."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if report.when == "call" and name.startswith("recovery_s"):
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {name} {value}")
