from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from ray.serve._private import replica

from deployments.front.bounds import ConnectionBounds
from deployments.front.proxies import ProxyKeeper
from deployments.security.exposure import HttpFront, bind_replica_port, is_loopback, warn_of_ray
from pipeline.settings import ConnectionSettings
from tests.unit.deployments.front.fake_proxies import FakeProxies


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("deployments.security.exposure")
    logger.addHandler(caplog.handler)
    before, logger.level = logger.level, logging.INFO
    yield caplog
    logger.level = before
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("address", "with_token", "levels"),
    [("127.0.0.1", False, []), ("10.0.0.5", True, ["INFO"]), ("10.0.0.5", False, ["WARNING"])],
)
def test_what_ray_leaves_open_is_said(
    log: pytest.LogCaptureFixture, address: str, with_token: bool, levels: list[str]
) -> None:
    warn_of_ray(address, with_token=with_token)
    assert {record.levelname for record in log.records} == set(levels)
    assert all("docs/security.md" in record.message for record in log.records)


@pytest.mark.parametrize(
    ("host", "required", "problem"),
    [("0.0.0.0", True, True), ("0.0.0.0", False, False), ("127.0.0.1", True, False)],
)
def test_a_network_is_not_served_without_bounds(host: str, required: bool, problem: bool) -> None:
    keeper = ProxyKeeper(FakeProxies({}), ConnectionBounds(), failure="a proxy that can't be bounded")
    front = HttpFront(keeper, host, ConnectionSettings(required=required))
    assert bool(front.problems()) is problem
    keeper.failure = None
    assert front.problems() == ()


class PortServer:
    """A server that records the address on which it is to listen."""

    def __init__(self) -> None:
        self.address = ""

    def add_insecure_port(self, address: str) -> int:
        self.address = address
        return 1


@pytest.mark.parametrize(("node", "address"), [("127.0.0.1", "127.0.0.1:0"), ("10.0.0.5", "[::]:0")])
def test_a_replica_on_a_node_of_its_own_keeps_to_the_machine(
    monkeypatch: pytest.MonkeyPatch, node: str, address: str
) -> None:
    monkeypatch.setattr(replica, "add_port_to_grpc_server", replica.add_port_to_grpc_server)
    server = PortServer()
    for _ in range(2):
        bind_replica_port(node)
    assert (replica.add_port_to_grpc_server(server, "[::]:0"), server.address) == (1, address)
