"""The services that the tests of this folder take apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.chaos.batch import Batch
from tests.chaos.service import ChaosService, Receiver, on_one_node, on_two_nodes, receiving
from tests.standins.llm import LlmServer, running_llm_server
from tests.support.mariadb import MariaDbServer, mariadb_required, running_mariadb


@pytest.fixture(scope="package")
def llm() -> Iterator[LlmServer]:
    """The language model's server, which is never killed."""
    with running_llm_server() as server:
        yield server


@pytest.fixture(scope="package")
def service(llm: LlmServer) -> Iterator[ChaosService]:
    """The application as ``serve run`` starts it, on SQLite."""
    with on_one_node(llm) as running:
        yield running


@pytest.fixture(scope="module")
def cluster() -> Iterator[ChaosService]:
    """The application on two nodes and a MariaDB; skipped without MariaDB, unless it is asked for."""
    with ExitStack() as stack:
        with mariadb_required():
            running = stack.enter_context(on_two_nodes())
        yield running


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDbServer]:
    """A server of the module's own; without MariaDB the tests are skipped, unless they are asked for."""
    with running_mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of callbacks on this machine."""
    with receiving() as listening:
        yield listening


@pytest.fixture
def batch(service: ChaosService, receiver: Receiver) -> Batch:
    """Tasks for the service on one node."""
    return Batch(service, receiver)


@pytest.fixture
def cluster_batch(cluster: ChaosService, receiver: Receiver) -> Batch:
    """Tasks for the service on two nodes."""
    return Batch(cluster, receiver)
