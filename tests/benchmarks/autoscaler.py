"""GPU nodes that Ray's autoscaler brings when audio waits, and takes when none is left: from no GPU node to none again.

The autoscaler is the real one; its provider (Ray's own, for tests) starts raylets on this machine instead of instances
of a cloud. Needs MariaDB.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.cluster import POLICY, SCALING, TO_ZERO, load
from tests.benchmarks.partition import ray_start
from tests.benchmarks.startup import end, free_port
from tests.benchmarks.tables import report
from tests.local_cluster import Application, eventually, serve_config, surroundings
from tests.mariadb import MariaDbServer

IDLE_MINUTES = 0.25
LISTS = (
    "rsync_exclude rsync_filter cluster_synced_files initialization_commands setup_commands head_setup_commands "
    "worker_setup_commands head_start_ray_commands worker_start_ray_commands"
)


def launcher_config(gcs: str) -> dict[str, Any]:
    """What `cluster.yaml` says, for the provider that starts raylets: up to three nodes with two GPUs and no CPUs."""
    return {
        "cluster_name": "trial",
        "max_workers": 3,
        "upscaling_speed": 3.0,
        "idle_timeout_minutes": IDLE_MINUTES,
        "provider": {"type": "fake_multinode", "gcs_address": gcs, "disable_node_updaters": True},
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "head_node_type": "ray.head.default",  # the provider knows no other name
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 4}, "node_config": {}, "max_workers": 0},
            "gpu": {"resources": {"CPU": 0, "GPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 3},
        },
        **{name: [] for name in LISTS.split()},
    }


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="ma-", dir="/tmp"))  # Ray's sockets need a short path
    try:
        with ExitStack() as stack:
            (home / "db").mkdir()
            database = stack.enter_context(MariaDbServer(home / "db"))
            environment = stack.enter_context(surroundings(home, database, "waiting-10x", {}))
            gcs, http, dashboard = f"127.0.0.1:{free_port()}", free_port(), free_port()
            (home / "launcher.json").write_text(json.dumps(launcher_config(gcs)))
            options = (
                f"--head --node-ip-address=127.0.0.1 --port={gcs.rpartition(':')[2]} --num-cpus=4 --num-gpus=0 --block "
                f"--autoscaling-config={home}/launcher.json --dashboard-port={dashboard} "
                f"--dashboard-agent-listen-port={free_port()} --ray-client-server-port={free_port()}"
            )
            faked = environment | {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
            stack.callback(end, ray_start("", options, faked))
            client = stack.enter_context(
                httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=60.0, trust_env=False)
            )
            application = Application(client, f"http://127.0.0.1:{dashboard}", environment, home)
            report("GPU nodes by the autoscaler", ["", "result"], _from_none_to_none(application, http))
    except BaseException:
        print((home / "ray" / "session_latest" / "logs" / "monitor.log").read_text()[-4000:], file=sys.stderr)
        raise
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _from_none_to_none(application: Application, http: int) -> list[list[str]]:
    eventually(lambda: _answers(application), "the dashboard")
    application.deploy(serve_config(http, SCALING | TO_ZERO, POLICY))
    began = time.monotonic()
    said: dict[str, None] = {}
    eventually(lambda: _ready(application, said), "a ready service")
    rows = [["`health/ready` until then", " / ".join(said) or "nothing: it was ready at its first answer"]]
    rows.append(["ready, on the first node brought", f"after {time.monotonic() - began:.1f} s"])
    eventually(lambda: application.gpu_nodes() == 0, "no GPU node")
    rows.append(["ready without any GPU node", str(application.ready().status_code == 200)])
    began = time.monotonic()
    load(application, [300.0] * 8)
    eventually(lambda: application.gpu_nodes() == 3, "three GPU nodes")
    rows.append(["three GPU nodes, from the first upload on", f"after {time.monotonic() - began:.1f} s"])
    eventually(lambda: len(application.replicas()) == 6, "six replicas")
    rows.append(["six replicas", f"after {time.monotonic() - began:.1f} s"])
    eventually(application.finished, "all completed", 240.0)
    rows.append(["all 8 tasks (2400 s of audio) completed", f"after {time.monotonic() - began:.1f} s"])
    eventually(lambda: application.gpu_nodes() == 0, "no GPU node")
    rows.append(["no GPU node left", f"after {time.monotonic() - began:.1f} s"])
    return rows


def _ready(application: Application, said: dict[str, None]) -> bool:
    """Whether the service is ready; what it says while it is not is kept."""
    answer = application.ready()
    if answer.content and answer.status_code != httpx.codes.OK and "detail" in answer.text:
        said[answer.json()["detail"]["message"]] = None
    return answer.status_code == httpx.codes.OK


def _answers(application: Application) -> bool:
    try:
        return httpx.get(f"{application.dashboard}/api/version", timeout=5.0, trust_env=False).is_success
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
