"""A Ray cluster of several nodes on this machine, with logical GPUs and the application on it.

Nodes are raylets with resources they only claim to have; the engine is the one that waits instead of decoding.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.mariadb import MariaDbServer
from tests.support.processes import ROOT, free_port
from tests.support.waiting import eventually

Record = dict[str, Any]


def serve_config(port: int, scaling: Mapping[str, Any], policy: Mapping[str, Any], **args: Any) -> dict[str, Any]:
    """``configs/serve.gpu.yaml`` for one machine: its own port, one proxy, few CPUs, other numbers for the scaling."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "serve.gpu.yaml").read_text())
    config["proxy_location"] = "HeadOnly"  # the nodes share one address
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    [application] = config["applications"]
    application["args"] |= args
    for deployment in application["deployments"]:
        if deployment["name"] == "WhisperReplica":
            deployment["autoscaling_config"] |= scaling
            deployment["autoscaling_config"]["policy"]["policy_kwargs"] |= policy
        elif "autoscaling_config" in deployment:
            deployment["autoscaling_config"] |= {"min_replicas": 1, "max_replicas": 1}
            deployment["ray_actor_options"] = {"num_cpus": 0.1}
    return config


@dataclass
class Application:
    """A client of the application, and of Serve's REST interface beneath it.

    Attributes:
        created: ids of the tasks it made.
        asked_again: requests that got no answer, or a server's error, and were sent again.
    """

    client: httpx.Client
    dashboard: str
    environment: Mapping[str, str]
    home: Path
    created: list[int] = field(default_factory=list)
    asked_again: int = 0

    def deploy(self, config: Mapping[str, Any]) -> None:
        """``serve deploy``."""
        file = self.home / f"{uuid.uuid4().hex}.yaml"
        file.write_text(yaml.safe_dump(dict(config)))
        check = self._start("deployments.config_check", str(file))
        deploy = self._start("ray.serve.scripts", "deploy", str(file), "-a", self.dashboard)
        for process in (check, deploy):
            output, _ = process.communicate()
            assert process.returncode == 0, output

    def _start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def status(self) -> Record:
        """Return the states of the application and of its deployments, as Serve reports them."""
        answer = httpx.get(f"{self.dashboard}/api/serve/applications/", timeout=10.0, trust_env=False)
        applications = answer.json()["applications"]
        found: Record = applications.get("murmuration", {})
        return found

    def replicas(self, deployment: str = "WhisperReplica", state: str = "RUNNING") -> list[Record]:
        """Return the replicas of a deployment in a state, with the node of each."""
        of = self.status().get("deployments", {}).get(deployment, {})
        return [replica for replica in of.get("replicas", []) if replica["state"] == state]

    def gpu_nodes(self) -> int:
        """Return the nodes with a GPU that are up."""
        answer = httpx.get(f"{self.dashboard}/api/v0/nodes?detail=1", timeout=10.0, trust_env=False).json()
        nodes = answer["data"]["result"]["result"]
        return sum(node["state"] == "ALIVE" and "GPU" in node["resources_total"] for node in nodes)

    def per_node(self) -> Counter[str]:
        """Return the number of WhisperReplicas on each node."""
        return Counter(replica["node_id"] for replica in self.replicas())

    def ready(self) -> httpx.Response:
        """Return the status of ``health/ready``, or 503 while nothing responds."""
        try:
            return self.client.get("/api/health/ready")
        except httpx.TransportError:
            return httpx.Response(503)

    def create(self, media: bytes, **options: str) -> int:
        """Queue a recording; try again while the service can't respond."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        files = {"file_upload": ("audio.wav", media)}
        answer = self._insist(
            lambda: self.client.post("/api/whisper/tasks/create", params=options, files=files, headers=headers)
        )
        task_id: int = answer["id"]
        self.created.append(task_id)
        return task_id

    def tasks(self) -> dict[int, Record]:
        """Return every task record, by id."""
        asked = dict.fromkeys(["status", "priority", "engine_name", "has_result", "has_error"])
        page = self._insist(
            lambda: self.client.post("/api/whisper/tasks/query", json={**asked, "include_result": False, "limit": 500})
        )
        return {record["id"]: record for record in page["tasks"]}

    def states(self) -> Counter[str]:
        """Return the number of tasks created here in each state."""
        records = self.tasks()
        return Counter(records[task_id]["status"] for task_id in self.created)

    def finished(self) -> bool:
        """Return whether all tasks created here are completed."""
        return self.states() == {"completed": len(self.created)}

    def _insist(self, request: Callable[[], httpx.Response]) -> Any:
        def ask() -> httpx.Response | None:
            try:
                answer = request()
            except httpx.TransportError:
                self.asked_again += 1
                return None
            self.asked_again += answer.is_server_error
            return None if answer.is_server_error else answer

        answer = eventually(ask, "an answer")
        assert answer.status_code == httpx.codes.OK, answer.text
        return answer.json()["data"]


@dataclass
class LocalCluster:
    """A head without GPUs, and GPU nodes that come and go."""

    cluster: Any
    application: Application
    http_port: int
    database: MariaDbServer

    def add_gpu_node(self, gpus: int = 2) -> Any:
        """Start one more node with so many logical GPUs, and no CPUs for others than WhisperReplicas."""
        return self.cluster.add_node(num_cpus=0, num_gpus=gpus)

    def kill_node(self, node: Any) -> None:
        """SIGKILL for a raylet and all its workers: what a power cut looks like."""
        self.cluster.remove_node(node, allow_graceful=False)


@contextmanager
def local_cluster(
    home: Path, *, model: str = "waiting-10x", settings: Mapping[str, str | None] | None = None
) -> Iterator[LocalCluster]:
    """Start a head node and a MariaDB; the caller deploys the application.

    Args:
        home: an empty folder with a short path: Ray's sockets lie below it.
        model: of the waiting engine.
        settings: more variables of the environment, or ``None`` for one that is not to be there.
    """
    (home / "db").mkdir()
    with MariaDbServer(home / "db") as database, surroundings(home, database, model, settings or {}) as environment:
        from ray.cluster_utils import Cluster

        http_port, dashboard_port = free_port(), free_port()
        head = {
            "num_cpus": 4,
            "num_gpus": 0,
            "include_dashboard": True,
            "dashboard_port": dashboard_port,
            "dashboard_agent_listen_port": free_port(),
            "gcs_server_port": free_port(),
        }
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=60.0, trust_env=False) as client:
                application = Application(client, f"http://127.0.0.1:{dashboard_port}", environment, home)
                yield LocalCluster(cluster, application, http_port, database)
        finally:
            cluster.shutdown()


@contextmanager
def surroundings(
    home: Path, database: MariaDbServer, model: str, settings: Mapping[str, str | None]
) -> Iterator[dict[str, str]]:
    """Set the variables that every process of the cluster inherits; unset them afterwards."""
    inherited: dict[str, str | None] = {
        "MURMURATION_DATABASE__URL": database.create_database("murmuration"),
        "MURMURATION_MEDIA__URL": (home / "media").as_uri(),
        "MURMURATION_ASR__ENGINE": "waiting",
        "MURMURATION_ASR__MODEL": model,
        "MURMURATION_LOGGING__FORMAT": "text",
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": str(home),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        **settings,
    }
    before = {name: os.environ.get(name) for name in inherited}
    _set(inherited)
    try:
        yield dict(os.environ)
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
