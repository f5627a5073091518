"""A Ray cluster of two nodes on this machine, in processes of its own: ``python -m tests.chaos.two_nodes``.

Prints the address of the cluster. A worker node that dies is replaced after a while, as a cluster launcher would.
Ends with SIGINT.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from ray.cluster_utils import Cluster

WORKER: dict[str, Any] = {
    "num_cpus": 2,
    "object_store_memory": 200 * 1024 * 1024,
}
"""Logical CPUs: one node alone has room for one WhisperReplica and all the rest."""
HEAD: dict[str, Any] = WORKER | {"include_dashboard": False}

LOOK_S = 0.5
REPLACED_AFTER_S = 5.0


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    try:
        worker = cluster.add_node(**WORKER)
        sys.stdout.write(f"{cluster.address}\n")
        sys.stdout.flush()
        while True:
            time.sleep(LOOK_S)
            if not worker.remaining_processes_alive():
                cluster.remove_node(worker, allow_graceful=False)
                time.sleep(REPLACED_AFTER_S)
                worker = cluster.add_node(**WORKER)
    except KeyboardInterrupt:
        cluster.shutdown()


if __name__ == "__main__":
    main()
