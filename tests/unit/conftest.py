"""What the tests without Ray and without a network run in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Use every core where whole folders are asked for, unless the command line decides otherwise.

    Unit tests share nothing but the machine. A single file is through before other processes have started.
    """
    undecided = config.getoption("numprocesses", 0) is None and not config.getoption("usepdb")
    in_worker = hasattr(config, "workerinput")
    if undecided and not in_worker and all(Path(argument).is_dir() for argument in config.args):
        config.option.numprocesses = "logical"
        config.option.dist = "worksteal"
        for library in (
            "OPENBLAS",
            "OMP",
        ):  # each process has a core, and threads of its own would wait for the others'
            os.environ.setdefault(f"{library}_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Clients trust one authority of ours: reading all public ones takes 20 ms for each client that is made."""
    path = tmp_path_factory.mktemp("authority") / "authority.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield
