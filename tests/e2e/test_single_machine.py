"""``python -m deployments.run``: what listens where, whose files they are, and what it takes of strangers."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.attacks.headers import ATTACKS, Attackers, ListeningAddress
from tests.support.processes import ROOT, descendants, free_port, on_port, running, surroundings
from tests.support.thoroughness import thorough
from tests.support.waiting import eventually

READY_WITHIN_S = 150.0
HEAD = b"GET /api/health/check HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
MAX_GROWTH_BYTES = 64 * 1024 * 1024
ATTACK_S = 3.0 if thorough() else 1.5


@dataclass(frozen=True)
class Alone:
    """The running service."""

    port: int
    home: Path

    @property
    def target(self) -> ListeningAddress:
        return ListeningAddress("127.0.0.1", self.port)

    def processes(self) -> list[psutil.Process]:
        """Return all processes that the command started."""
        config = str(self.home / "serve_config.yaml")  # another service of the same tests may run
        [mine] = [child for child in psutil.Process().children() if config in child.cmdline()]
        return [mine, *descendants(mine.pid)]

    def front(self) -> psutil.Process:
        """Return the process that accepts HTTP connections."""
        return next(process for process in self.processes() if self.port in _ports(process))

    def get(self, head: bytes) -> int:
        """Send a request; return the status of its response."""
        with closing(socket.create_connection((self.target.host, self.port), timeout=30)) as connection:
            connection.sendall(head)
            return int(connection.recv(65_536).split()[1])


FRONTS = {"python proxy": "0", "haproxy": "1"} if thorough() else {"python proxy": "0"}


@pytest.fixture(scope="module", params=list(FRONTS.values()), ids=list(FRONTS))
def alone(request: pytest.FixtureRequest) -> Iterator[Alone]:
    """The service as the one command starts it, ready."""
    home, port = Path(tempfile.mkdtemp(prefix="ma-", dir="/tmp")), free_port()  # Ray's sockets need a short path
    config = home / "serve_config.yaml"
    config.write_text(yaml.safe_dump(on_port(yaml.safe_load((ROOT / "serve_config.yaml").read_text()), port)))
    environment = surroundings(home) | {
        "MURMURATION_ASR__ENGINE": "waiting",
        "MURMURATION_ASR__MODEL": "waiting-10x",
        "MURMURATION_CONNECTIONS__HEAD_TIMEOUT_S": "2",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "2",
        "RAY_SERVE_ENABLE_HA_PROXY": request.param,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(home / "haproxy" / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(home / "haproxy" / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(home / "haproxy"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(home / "haproxy" / "state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(home / "haproxy" / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }
    del environment["RAY_AUTH_MODE"]
    try:
        with running([sys.executable, "-m", "deployments.run", str(config)], environment):
            eventually(lambda: _ready(port), "ready", READY_WITHIN_S)
            yield Alone(port, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_nothing_listens_beyond_this_machine(alone: Alone, request: pytest.FixtureRequest) -> None:
    if "haproxy" in request.node.callspec.id:
        pytest.skip("HAProxy's own statistics listen on every interface: docs/security.md")
    open_to_all = [
        (process.pid, address)
        for process in alone.processes()
        for address in _listening(process)
        if not _is_loopback(address.ip)
    ]
    assert open_to_all == []


def test_files_are_the_users_alone(alone: Alone) -> None:
    files = [alone.home / ".ray" / "auth_token", *(alone.home / "data").rglob("*")]
    assert any(file.name == "tasks.db" for file in files)
    readable = {str(file): oct(file.stat().st_mode) for file in files if file.stat().st_mode & 0o077}
    assert readable == {}
    assert stat.S_IMODE((alone.home / "data").stat().st_mode) == 0o700


def test_ray_asks_for_its_token(alone: Alone) -> None:
    assert (alone.home / ".ray" / "auth_token").read_text()
    dashboards = [port for process in alone.processes() for port in _ports(process) if _asks_for_a_token(port)]
    assert dashboards


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"x: " + b"a" * 80_000 + b"\r\n\r\n",
        HEAD + b"".join(b"x-%d: a\r\n" % number for number in range(120)) + b"\r\n",
        b"GET /" + b"a" * 80_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["a large header", "many headers", "a long URL"],
)
def test_large_heads_are_refused(alone: Alone, sent: bytes) -> None:
    eventually(lambda: 400 <= alone.get(sent) < 500, "refused", within_s=30.0)
    assert alone.get(HEAD + b"\r\n") == httpx.codes.OK


@pytest.mark.parametrize(
    "name", ["endless_header", "endless_request_line", "many_headers", "endless_trailers", "pipelining"]
)
async def test_the_front_does_not_grow(alone: Alone, name: str) -> None:
    front, attackers = alone.front(), Attackers()
    before = front.memory_info().rss
    attack = asyncio.ensure_future(ATTACKS[name](alone.target, attackers))
    await asyncio.wait([attack], timeout=ATTACK_S)
    attack.cancel()
    await asyncio.wait([attack])
    assert front.memory_info().rss - before < MAX_GROWTH_BYTES
    assert await asyncio.to_thread(alone.get, HEAD + b"\r\n") == httpx.codes.OK


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HEAD + b"x: "], ids=["nothing", "a line", "a header"])
def test_a_head_that_does_not_come_is_given_up(alone: Alone, sent: bytes) -> None:
    with closing(socket.create_connection((alone.target.host, alone.port), timeout=60)) as connection:
        connection.sendall(sent)
        answer = connection.recv(65_536)  # a client that waited for ever would fail by its own timeout
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_proxy_that_was_replaced_is_bounded_again(alone: Alone) -> None:
    front = alone.front()
    front.send_signal(signal.SIGKILL)
    front.wait(30)
    eventually(lambda: _ready(alone.port), "ready", READY_WITHIN_S)
    eventually(lambda: 400 <= alone.get(HEAD + b"x: " + b"a" * 80_000 + b"\r\n\r\n") < 500, "refused", within_s=30.0)


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/api/health/ready", trust_env=False).is_success
    except httpx.TransportError:
        return False


def _asks_for_a_token(port: int) -> bool:
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/api/version", trust_env=False, timeout=2.0)
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.UNAUTHORIZED


def _ports(process: psutil.Process) -> list[int]:
    return [address.port for address in _listening(process)]


def _listening(process: psutil.Process) -> list[Any]:
    try:
        connections = process.net_connections("inet")
    except psutil.NoSuchProcess:
        return []
    return [connection.laddr for connection in connections if connection.status == psutil.CONN_LISTEN]


def _is_loopback(address: str) -> bool:
    parsed = ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback
