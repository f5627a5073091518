"""A cluster whose nodes are in network namespaces of their own, one of them cut off for a minute in mid-work.

The head and MariaDB are in this machine's own namespace, two nodes with two logical GPUs each behind a bridge. Needs
root, iproute2 and MariaDB.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.cluster import POLICY, load
from tests.benchmarks.startup import end, free_port
from tests.benchmarks.tables import report
from tests.local_cluster import Application, eventually, serve_config, surroundings
from tests.mariadb import MariaDbServer

BRIDGE, HEAD_IP = "mmbridge", "10.77.0.1"


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
def cluster(home: Path, nodes: list[Node]) -> Iterator[tuple[Application, str, int]]:
    """The application's client, the cluster's address and the port of HTTP."""
    with ExitStack() as stack:
        stack.enter_context(network())
        (home / "db").mkdir()
        database = stack.enter_context(MariaDbServer(home / "db", HEAD_IP))
        environment = stack.enter_context(surroundings(home, database, "waiting-10x", {}))
        gcs, http, dashboard = free_port(), free_port(), free_port()
        options = (
            f"--head --node-ip-address={HEAD_IP} --port={gcs} --num-cpus=4 --num-gpus=0 --block "
            f"--dashboard-port={dashboard} --dashboard-agent-listen-port={free_port()} "
            f"--ray-client-server-port={free_port()}"
        )
        head = ray_start("", options, environment)
        stack.callback(end, head)
        for node in nodes:
            node.create()
            stack.callback(node.remove)
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=60.0, trust_env=False))
        application = Application(client, f"http://127.0.0.1:{dashboard}", environment, home)
        eventually(lambda: _answers(application.dashboard), "the dashboard")
        for node in nodes:  # one by one: raylets that start together choose the same names for their sockets
            node.start(f"{HEAD_IP}:{gcs}", environment)
            eventually(lambda: application.gpu_nodes() >= node.number, "the node")  # noqa: B023 - called here
        yield application, f"{HEAD_IP}:{gcs}", http


def _answers(dashboard: str) -> bool:
    try:
        return httpx.get(f"{dashboard}/api/version", timeout=5.0, trust_env=False).is_success
    except httpx.TransportError:
        return False


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=60.0, help="how long the node is cut off")
    seconds = arguments.parse_args().seconds
    home, nodes = Path(tempfile.mkdtemp(prefix="mp-", dir="/tmp")), [Node(1), Node(2)]
    try:
        with cluster(home, nodes) as (application, address, http):
            report(
                f"A node cut off for {seconds:.0f} s",
                ["", "after"],
                _partition(application, address, http, nodes, seconds),
            )
    except BaseException:
        for log in (home / "start.log", *(home / "ray" / "session_latest" / "logs").glob("raylet*")):
            print(f"--- {log.name}", log.read_text()[-2000:], sep="\n", file=sys.stderr)
        raise
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _partition(application: Application, address: str, http: int, nodes: list[Node], seconds: float) -> list[list[str]]:
    fixed: dict[str, Any] = {"min_replicas": 4, "initial_replicas": 4, "max_replicas": 4}
    application.deploy(serve_config(http, fixed, POLICY))
    eventually(lambda: len(application.replicas()) == 4, "four replicas")
    eventually(lambda: application.ready().status_code == 200, "a ready service")
    load(application, [300.0] * 12)
    eventually(lambda: application.states()["completed"] >= 1, "a first task completed")
    cut = time.monotonic()
    nodes[1].plug("down")
    rows: list[list[str]] = []
    done_before = application.states()["completed"]
    eventually(lambda: application.states()["completed"] > done_before, "work goes on")
    rows.append(["another task completed, the node still cut off", f"{time.monotonic() - cut:.1f} s"])
    eventually(lambda: len(application.replicas()) <= 2, "the replicas there are given up")
    rows.append(["Serve has given up the replicas there", f"{time.monotonic() - cut:.1f} s"])
    time.sleep(max(0.0, seconds - (time.monotonic() - cut)))
    nodes[1].plug("up")
    rows.append(["the node is joined again", f"{time.monotonic() - cut:.1f} s"])
    if nodes[1].process:
        end(nodes[1].process)  # declared dead, its raylet has ended or will; a supervisor starts Ray again
    nodes[1].start(address, application.environment)
    eventually(lambda: len(application.replicas()) == 4, "four replicas again")
    rows.append(["four replicas again, Ray started anew on it", f"{time.monotonic() - cut:.1f} s"])
    eventually(application.finished, "all completed", 300.0)
    rows.append([f"all tasks: {dict(application.states())}", f"{time.monotonic() - cut:.1f} s"])
    return rows


if __name__ == "__main__":
    main()
