"""Seconds from `serve run serve_config.yaml` until the service says it is ready.

Every run has a Ray cluster, ports, a home and data of its own. The first one finds no model in the user's cache and
has to put it together; the others find it there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.benchmarks.client import ServiceClient
from tests.benchmarks.reports import median_s, report
from tests.support.processes import ROOT, free_port, on_port, running, surroundings


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
    """Start the application, wait until it is ready, and end it with all that it started."""
    port = free_port()
    own_config = home / "serve_config.yaml"
    own_config.write_text(yaml.safe_dump(on_port(yaml.safe_load(config.read_text()), port)))
    started = time.monotonic()
    with running([sys.executable, "-m", "ray.serve.scripts", "run", str(own_config)], surroundings(home)):
        ServiceClient(f"http://127.0.0.1:{port}").wait_until_ready(timeout_s)
        return time.monotonic() - started


if __name__ == "__main__":
    main()
