"""Processes that tests and benchmarks start: their surroundings, their ports and their end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
"""The repository."""
STOP_TIMEOUT_S = 60.0
FOREIGN = ("RAY_", "XDG_", "MURMURATION_")
"""Prefixes of the environment variables that are about another service."""
RUN_MARK = "MURMURATION_CI_RUN"
"""The variable by which ``.ci/run`` knows its processes, to end those that are left."""


def surroundings(home: Path) -> dict[str, str]:
    """Return an environment in which neither the user's files nor a cluster that already runs are touched."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN) or name == RUN_MARK}
    return kept | {
        "HOME": str(home),
        "MURMURATION_DATA_DIR": str(home / "data"),
        "RAY_ADDRESS": "local",
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": str(home / "ray"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def haproxy(home: Path) -> dict[str, str]:
    """Return the variables that put HAProxy in place of Serve's proxy, apart from any other on this machine."""
    folder = home / "haproxy"
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }


def on_port(config: dict[str, Any], port: int) -> dict[str, Any]:
    """Return the same Serve config on another port."""
    return config | {"http_options": config.get("http_options", {}) | {"host": "127.0.0.1", "port": port}}


def name_of_a_dead_process() -> str:
    """Return the name of a process that has ended."""
    command = [sys.executable, "-c", "from pipeline.process_identity import own_name; print(own_name())"]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """Run a command from the repository's root in a process group of its own, and leave none of its children behind.

    Its output goes to a file that is shown if the block fails.
    """
    ray_folder = Path(environment["RAY_TMPDIR"])
    ray_folder.mkdir(exist_ok=True)
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield
        except BaseException:
            output.seek(0)
            sys.stderr.write(output.read()[-8000:] + "\n")
            raise
        finally:
            kill(process)
            shutil.rmtree(ray_folder, ignore_errors=True)


def end(process: subprocess.Popen[Any]) -> None:
    """Interrupt a process as Ctrl-C would, then kill the rest of its descendants, by their ids."""
    family = list(descendants(process.pid))
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(family, timeout=5.0)
    for survivor in left:
        survivor.kill()
    psutil.wait_procs(left, timeout=5.0)


def kill(process: subprocess.Popen[Any]) -> None:
    """Kill a process and all its descendants, by their ids: nobody needs what they still work at."""
    family = list(descendants(process.pid))
    process.kill()
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    psutil.wait_procs(family, timeout=10.0)


def descendants(pid: int) -> Iterator[psutil.Process]:
    """Yield the living processes below ``pid``, at any depth."""
    try:
        yield from psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
