"""Facts about the Ray cluster: its nodes, its GPUs, and whether GPU nodes may join."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray._private import state
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

T = TypeVar("T")

HEAD = "node:__internal_head__"
"""The resource that only the head node has."""

NODE_TIMEOUT_S = 60.0
"""Longest time for a small task on a node, including the start of a worker."""


def gpus() -> float:
    """Return the number of logical GPUs of all nodes that are up."""
    return float(ray.cluster_resources().get("GPU", 0.0))


def alive_nodes() -> list[dict[str, Any]]:
    """Return Ray's records of the nodes that are up; none if Ray has not been started."""
    if not ray.is_initialized():
        return []
    return [node for node in ray.nodes() if node["Alive"]]


def local_drivers() -> Iterator[tuple[list[str], Path]]:
    """Yield the command line and working directory of each driver of this cluster that runs on this machine."""
    here = ray.util.get_node_ip_address()
    for job in state.jobs():
        process = Path("/proc") / str(job["DriverPid"])
        if not job["IsDead"] and job["DriverIPAddress"] == here:
            with suppress(OSError):  # the process has ended, or belongs to another user
                yield _command(process / "cmdline"), (process / "cwd").resolve(strict=True)


def gpu_nodes_may_come() -> bool:
    """Return whether Ray's autoscaler runs, or KubeRay's, which is in another container: either may add GPU nodes."""
    address = ray.get_runtime_context().gcs_address
    heads = [node["NodeID"] for node in alive_nodes() if HEAD in node["Resources"]]
    return any(run_on(node_id, partial(_autoscaled, address)) for node_id in heads)


def run_on(node_id: str, function: Callable[[], T]) -> T:
    """Run a small function on one node and return its result.

    Raises:
        RayError: the node is gone, or did not answer within ``NODE_TIMEOUT_S``.
    """
    result: T = ray.get(_start(node_id, function), timeout=NODE_TIMEOUT_S)
    return result


def run_on_all(function: Callable[[], T]) -> list[tuple[str, T | RayError]]:
    """Run a small function on every node that is up, at the same time.

    Returns:
        For each node its name and the function's result there, or Ray's error.
    """
    tasks = [(node["NodeName"], _start(node["NodeID"], function)) for node in alive_nodes()]
    return [(name, _outcome(task)) for name, task in tasks]


def _start(node_id: str, function: Callable[[], Any]) -> ray.ObjectRef:
    placed = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=placed)(_call).remote(function)


def _call(function: Callable[[], Any]) -> Any:
    """Call the function on a node. Ray accepts plain functions only, and ours are partial ones with arguments."""
    return function()


def _outcome(task: ray.ObjectRef) -> Any:
    try:
        return ray.get(task, timeout=NODE_TIMEOUT_S)
    except RayError as error:
        return error


def _autoscaled(address: str) -> bool:
    return "KUBERAY_GEN_RAY_START_CMD" in os.environ or any(
        _is_autoscaler(command, address) for command in _commands(Path("/proc"))
    )


def _commands(processes: Path) -> Iterator[list[str]]:
    """Yield the command lines of this machine's processes."""
    for file in processes.glob("[0-9]*/cmdline"):
        with suppress(OSError):  # the process has ended, or belongs to another user
            yield _command(file)


def _command(cmdline: Path) -> list[str]:
    return cmdline.read_bytes().decode(errors="replace").split("\0")


def _is_autoscaler(command: Sequence[str], address: str) -> bool:
    """Return whether this is the monitor that ``ray start --head --autoscaling-config=…`` starts for the cluster."""
    return f"--gcs-address={address}" in command and any(
        argument.startswith("--autoscaling-config=") for argument in command
    )
