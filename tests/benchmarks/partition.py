"""A cluster whose nodes are in network namespaces of their own, one of them cut off for a minute in mid-work.

The head and MariaDB are in this machine's own namespace, two nodes with two logical GPUs each behind a bridge. Needs
root, iproute2, unshare and MariaDB.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from tests.benchmarks.cluster import POLICY, load
from tests.benchmarks.namespaces import Node, cluster, trial
from tests.benchmarks.reports import report
from tests.support.local_cluster import Application, serve_config
from tests.support.waiting import eventually


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=60.0, help="how long the node is cut off")
    seconds = arguments.parse_args().seconds
    nodes = [Node(1), Node(2)]
    with trial("p") as home, cluster(home, nodes) as (application, head, http):
        rows = _partition(application, head.address, http, nodes, seconds)
        report(f"A node cut off for {seconds:.0f} s", ["", "after"], rows)


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
    nodes[1].restart(address, application.environment)  # declared dead, its raylet has ended or will
    eventually(lambda: len(application.replicas()) == 4, "four replicas again")
    rows.append(["four replicas again, Ray started anew on it", f"{time.monotonic() - cut:.1f} s"])
    eventually(application.finished, "all completed", 300.0)
    rows.append([f"all tasks: {dict(application.states())}", f"{time.monotonic() - cut:.1f} s"])
    return rows


if __name__ == "__main__":
    main()
