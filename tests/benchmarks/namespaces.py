"""A cluster in network namespaces: the head and MariaDB in this machine's own, GPU nodes in theirs, behind a bridge.

Needs root, iproute2, unshare and MariaDB.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from tests.support.local_cluster import Application, surroundings
from tests.support.mariadb import MariaDbServer
from tests.support.processes import descendants, end, free_port
from tests.support.waiting import eventually

BRIDGE, HEAD_IP = "mmbridge", "10.77.0.1"


@dataclass
class Head:
    """The head's processes; started again, they are the same head to everyone else."""

    gcs_port: int
    dashboard_port: int
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    ports: str = field(init=False)

    def __post_init__(self) -> None:
        self.ports = f"--dashboard-agent-listen-port={free_port()} --ray-client-server-port={free_port()}"

    @property
    def address(self) -> str:
        return f"{HEAD_IP}:{self.gcs_port}"

    def start(self) -> None:
        options = (
            f"--head --node-ip-address={HEAD_IP} --port={self.gcs_port} --num-cpus=4 --num-gpus=0 --block "
            f"--dashboard-port={self.dashboard_port} {self.ports}"
        )
        # It must not see the raylets of the nodes, or it takes the cluster for running already.
        self.process = ray_start("unshare --pid --fork --kill-child --mount-proc", options, self.environment)
        eventually(lambda: _answers(f"http://127.0.0.1:{self.dashboard_port}"), "the dashboard")

    def kill(self) -> None:
        """SIGKILL for Ray's processes and every worker of theirs: what a power cut looks like."""
        if self.process:
            for process in list(descendants(self.process.pid)):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.kill()
            self.process.wait()


@dataclass
class Node:
    """A namespace with a network of its own, and the raylet in it."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    name: str = field(init=False)
    ip: str = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.ip = f"mmnode{self.number}", f"10.77.0.{10 + self.number}"

    def create(self) -> None:
        run(f"ip netns add {self.name}")
        run(f"ip link add {self.name} type veth peer name eth0 netns {self.name}")
        run(f"ip link set {self.name} master {BRIDGE} up")
        run(f"ip -n {self.name} addr add {self.ip}/24 dev eth0")
        run(f"ip -n {self.name} link set eth0 up")
        run(f"ip -n {self.name} link set lo up")

    def start(self, gcs: str, environment: Mapping[str, str]) -> None:
        options = f"--address={gcs} --node-ip-address={self.ip} --num-cpus=0 --num-gpus=2 --block"
        self.process = ray_start(f"ip netns exec {self.name}", options, environment)

    def restart(self, gcs: str, environment: Mapping[str, str]) -> None:
        """End the remains of the raylet and start another, as a supervisor would."""
        if self.process:
            end(self.process)
        self.start(gcs, environment)

    def plug(self, state: str) -> None:
        """``down`` cuts the node off, ``up`` joins it again."""
        run(f"ip link set {self.name} {state}")

    def remove(self) -> None:
        if self.process:
            end(self.process)
        run(f"ip netns del {self.name}")


def run(command: str) -> None:
    subprocess.run(command.split(), check=True)


def ray_start(prefix: str, options: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    ports = "--min-worker-port=0 --max-worker-port=0 --object-store-memory=150000000 --disable-usage-stats"
    command = [*prefix.split(), sys.executable, "-m", "ray.scripts.scripts", "start", *options.split(), *ports.split()]
    log = Path(environment["RAY_TMPDIR"]) / "start.log"
    with log.open("ab") as output:
        patient = {**environment, "RAY_raylet_start_wait_time_s": "120"}  # beside other work a raylet takes a while
        return subprocess.Popen(command, env=patient, stdout=output, stderr=output, start_new_session=True)


@contextmanager
def network() -> Iterator[None]:
    run(f"ip link add {BRIDGE} type bridge")
    try:
        run(f"ip addr add {HEAD_IP}/24 dev {BRIDGE}")
        run(f"ip link set {BRIDGE} up")
        yield
    finally:
        run(f"ip link del {BRIDGE}")


@contextmanager
def cluster(home: Path, nodes: list[Node], **settings: str) -> Iterator[tuple[Application, Head, int]]:
    """Start the nodes; yield the application's client, the head and the port of HTTP.

    Args:
        home: folder of the database and of every process.
        nodes: the nodes, each in a network namespace.
        settings: more variables of every process.
    """
    with ExitStack() as stack:
        stack.enter_context(network())
        (home / "db").mkdir()
        database = stack.enter_context(MariaDbServer(home / "db", HEAD_IP))
        environment = stack.enter_context(surroundings(home, database, "waiting-10x", settings))
        head, http = Head(free_port(), free_port(), environment), free_port()
        stack.callback(head.kill)
        head.start()
        for node in nodes:
            node.create()
            stack.callback(node.remove)
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=60.0, trust_env=False))
        application = Application(client, f"http://127.0.0.1:{head.dashboard_port}", environment, home)
        for node in nodes:  # one by one: raylets that start together choose the same names for their sockets
            node.start(head.address, environment)
            eventually(lambda: application.gpu_nodes() >= node.number, "the node")  # noqa: B023 - called here
        yield application, head, http


@contextmanager
def trial(name: str) -> Iterator[Path]:
    """Make a folder with a short path, for Ray's sockets; if the trial fails, print the ends of the logs in it."""
    home = Path(tempfile.mkdtemp(prefix=f"m{name}-", dir="/tmp"))
    try:
        yield home
    except BaseException:
        for log in (home / "start.log", *(home / "ray" / "session_latest" / "logs").glob("raylet*")):
            print(f"--- {log.name}", log.read_text()[-2000:], sep="\n", file=sys.stderr)
        raise
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _answers(dashboard: str) -> bool:
    try:
        return httpx.get(f"{dashboard}/api/version", timeout=5.0, trust_env=False).is_success
    except httpx.TransportError:
        return False
