"""Seconds from `serve run serve_config.yaml` until the service says it is ready.

Every run has a Ray cluster, ports, a home and data of its own. The first one finds no model in the user's cache and
has to put it together; the others find it there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.benchmarks.client import Service
from tests.benchmarks.processes import descendants
from tests.benchmarks.tables import median_s, report

ROOT = Path(__file__).parents[2]
STOP_TIMEOUT_S = 60.0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--config", type=Path, default=ROOT / "serve_config.yaml", help="Serve config to start")
    arguments.add_argument("--rounds", type=int, default=3, help="starts with a warm model cache, after the first one")
    arguments.add_argument("--timeout", type=float, default=180.0, help="seconds after which a start has failed")
    chosen = arguments.parse_args()

    with tempfile.TemporaryDirectory(prefix="m-", dir="/tmp") as folder:  # Ray's sockets need a short path
        first_s = seconds_to_ready(chosen.config, Path(folder), chosen.timeout)
        warm_s = [seconds_to_ready(chosen.config, Path(folder), chosen.timeout) for _ in range(chosen.rounds)]
    rows = [["empty (first start)", "1", f"{first_s:.1f} s"], ["warm", str(len(warm_s)), median_s(warm_s, 1)]]
    report("From `serve run` to ready", ["model cache", "runs", "median (range)"], rows)


def seconds_to_ready(config: Path, home: Path, timeout_s: float) -> float:
    """Starts the application, waits until it is ready, and ends it with all it started."""
    port = free_port()
    own_config = home / "serve_config.yaml"
    own_config.write_text(yaml.safe_dump(on_port(yaml.safe_load(config.read_text()), port)))
    started = time.monotonic()
    with running([sys.executable, "-m", "ray.serve.scripts", "run", str(own_config)], surroundings(home)):
        Service(f"http://127.0.0.1:{port}").wait_until_ready(timeout_s)
        return time.monotonic() - started


def on_port(config: dict[str, Any], port: int) -> dict[str, Any]:
    """The same Serve config on another port."""
    return config | {"http_options": config.get("http_options", {}) | {"host": "127.0.0.1", "port": port}}


FOREIGN = ("RAY_", "XDG_", "MURMURATION_")
"""How the names of variables begin that are about another service."""
RUN_MARK = "MURMURATION_CI_RUN"
"""By this variable ``.ci/run`` knows its processes, to end those that are left."""


def surroundings(home: Path) -> dict[str, str]:
    """An environment in which neither the user's files nor a cluster that already runs are touched."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN) or name == RUN_MARK}
    return kept | {
        "HOME": str(home),
        "MURMURATION_DATA_DIR": str(home / "data"),
        "RAY_ADDRESS": "local",
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": str(home / "ray"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """Runs a command from the repository's root in a process group of its own, and leaves none of its children behind.

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
            print(output.read()[-8000:], file=sys.stderr)
            raise
        finally:
            end(process)
            shutil.rmtree(ray_folder, ignore_errors=True)


def end(process: subprocess.Popen[Any]) -> None:
    """Interrupts a process as Ctrl-C would, then kills what is left of its descendants, by their ids."""
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


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    main()
