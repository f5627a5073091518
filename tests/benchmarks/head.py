"""The head of a cluster killed in mid-work and started again, with Ray's state in RocksDB.

Everything but the replicas of Whisper runs on the head, so a whole service dies and comes back. The nodes with the GPUs
are in network namespaces of their own. Needs root, iproute2, unshare and MariaDB.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from tests.benchmarks.cluster import POLICY, load
from tests.benchmarks.namespaces import Head, Node, cluster, trial
from tests.benchmarks.reports import report
from tests.support.local_cluster import Application, serve_config
from tests.support.waiting import eventually

FLEET: dict[str, Any] = {"min_replicas": 4, "initial_replicas": 4, "max_replicas": 4}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with trial("h") as home:
        rocksdb = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(home / "gcs")}
        with cluster(home, [Node(1), Node(2)], **rocksdb) as (application, head, http):
            rows = _restart(application, head, http)
    report("The head killed and started again, its state in RocksDB", ["", "after the kill"], rows)


def _restart(application: Application, head: Head, http: int) -> list[list[str]]:
    application.deploy(serve_config(http, FLEET, POLICY))
    eventually(lambda: len(application.replicas()) == 4, "four replicas")
    eventually(lambda: application.ready().status_code == 200, "a ready service")
    load(application, [300.0] * 12)
    eventually(lambda: application.states()["completed"] >= 1, "a first task completed")
    before = {replica["replica_id"] for replica in application.replicas()}
    killed = time.monotonic()

    def after(what: str) -> list[str]:
        return [what, f"{time.monotonic() - killed:.1f} s"]

    head.kill()
    head.start()
    rows = [after("the head's dashboard answers again")]
    eventually(lambda: application.ready().status_code == 200, "a ready service")
    rows.append(after("the service is ready"))
    eventually(lambda: len(application.replicas()) == 4, "four replicas")
    kept = before & {replica["replica_id"] for replica in application.replicas()}
    rows.append(after(f"four replicas run, {len(kept)} of them the same"))
    eventually(application.finished, "all completed", 300.0)
    rows.append(after(f"all tasks: {dict(application.states())}"))
    return rows


if __name__ == "__main__":
    main()
