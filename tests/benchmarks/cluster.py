"""A cluster of three nodes with two logical GPUs each, on this machine: what it does when work, nodes and code change.

Trials: `scale`, 0 → 6 → 0 with the queue; `kill`, a node dies in mid-work and comes back; `deploy`, a new config under
load; `rotate`, other keys and another user of the database under load; `speedup`, one mixed load on 1, 2, 4 and 8
replicas. The engine waits instead of decoding. Needs MariaDB.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from deployments.keys import new_key
from tests.benchmarks.reports import report
from tests.support.local_cluster import Application, LocalCluster, local_cluster, serve_config
from tests.support.mariadb import PASSWORD, USER
from tests.support.processes import ROOT
from tests.support.recordings import noise
from tests.support.waiting import eventually

SCALING = {"min_replicas": 0, "initial_replicas": 1, "max_replicas": 6, "upscale_delay_s": 1, "downscale_delay_s": 5}
TO_ZERO = {"downscale_to_zero_delay_s": 5}
POLICY = {"target_wait_s": 20, "expected_rtfx": 10}
SUCCESSOR_PASSWORD = "only-here-too"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "trials", nargs="*", default=["scale", "kill", "deploy", "rotate", "speedup"], help="which, in order"
    )
    arguments.add_argument("--replicas", default="1,2,4,8", help="of `speedup`, by commas")
    arguments.add_argument("--load", type=int, default=1, help="how many times the load of `speedup`")
    chosen = arguments.parse_args()
    trials: dict[str, Callable[[], None]] = {
        "scale": scale,
        "kill": kill,
        "deploy": deploy,
        "rotate": rotate,
        "speedup": lambda: speedup([int(count) for count in chosen.replicas.split(",")], chosen.load),
    }
    for name in chosen.trials:
        trials[name]()


@contextmanager
def cluster(**settings: str | None) -> Iterator[LocalCluster]:
    """Start a head without GPUs and nothing else yet; its folder is removed afterwards."""
    home = Path(tempfile.mkdtemp(prefix="mc-", dir="/tmp"))  # Ray's sockets need a short path
    try:
        with local_cluster(home, settings=settings) as running:
            yield running
    finally:
        shutil.rmtree(home, ignore_errors=True)


def load(application: Application, lengths_s: list[float]) -> None:
    """Queue one recording of each length."""
    for number, seconds in enumerate(lengths_s):
        application.create(noise(seconds, number), vad_filter="false", language="en")


def ready(running: LocalCluster) -> None:
    eventually(lambda: running.application.ready().status_code == 200, "a ready service")


def scale() -> None:
    """0 → 6 → 0 with the queue, and one replica a GPU across the nodes."""
    with cluster() as running:
        application = running.application
        for _ in range(3):
            running.add_gpu_node()
        application.deploy(serve_config(running.http_port, SCALING | TO_ZERO, POLICY))
        ready(running)
        eventually(lambda: not application.replicas(), "a fleet at zero")
        started = time.monotonic()
        load(application, [300.0] * 8)
        waited = eventually(lambda: len(application.replicas()) >= 1 and time.monotonic() - started, "a first replica")
        full = eventually(lambda: len(application.replicas()) == 6 and time.monotonic() - started, "six replicas")
        per_node = sorted(application.per_node().values())
        done = eventually(lambda: application.finished() and time.monotonic() - started, "all completed")
        zero = eventually(lambda: not application.replicas() and time.monotonic() - started, "a fleet at zero again")
    rows = [
        ["first replica runs", f"{waited:.1f} s"],
        ["six replicas run", f"{full:.1f} s, {per_node} a node"],
        ["all 8 tasks (2400 s of audio) completed", f"{done:.1f} s"],
        ["no replica left", f"{zero:.1f} s"],
    ]
    report("0 → 6 → 0, from the first upload on", ["", "after"], rows)


def kill() -> None:
    """Kill a node in mid-work and add another one."""
    with cluster() as running:
        application = running.application
        nodes = [running.add_gpu_node() for _ in range(3)]
        fixed = {"min_replicas": 6, "initial_replicas": 6, "max_replicas": 6}
        application.deploy(serve_config(running.http_port, fixed, POLICY))
        ready(running)
        eventually(lambda: len(application.replicas()) == 6, "six replicas")
        load(application, [300.0] * 10)
        eventually(lambda: application.states()["completed"] >= 1, "a first task completed")
        struck = time.monotonic()
        running.kill_node(nodes[1])
        left = eventually(lambda: len(application.replicas()) == 4 and time.monotonic() - struck, "four replicas")
        running.add_gpu_node()
        back = eventually(lambda: len(application.replicas()) == 6 and time.monotonic() - struck, "six replicas again")
        done = eventually(lambda: application.finished() and time.monotonic() - struck, "all completed", 300.0)
        states = application.states()
    rows = [
        ["Serve sees four replicas", f"{left:.1f} s"],
        ["six run again, on a node added then", f"{back:.1f} s"],
        [f"all tasks: {dict(states)}", f"{done:.1f} s"],
    ]
    report("A node of two killed in mid-work, from the kill on", ["", "after"], rows)


def deploy() -> None:
    """`serve deploy` of changed args (a restart of everything) and of a changed user_config, under load."""
    with cluster() as running:
        application = running.application
        for _ in range(2):
            running.add_gpu_node()
        fixed = {"min_replicas": 3, "initial_replicas": 3, "max_replicas": 3}
        config = serve_config(running.http_port, fixed, POLICY)
        application.deploy(config)
        ready(running)
        with _under_load(application):
            rows = [_deployed(application, config, "user_config"), _deployed(application, config, "args")]
        rows += _what_became_of(application)
    report("`serve deploy` under load", ["what", "result"], rows)


@contextmanager
def _under_load(application: Application) -> Iterator[None]:
    """Queue a recording of 30 s every second, from before the block until after it."""
    stop = threading.Event()

    def keep_sending() -> None:
        while not stop.is_set():
            application.create(noise(30.0), vad_filter="false", language="en")
            stop.wait(1.0)

    sender = threading.Thread(target=keep_sending)
    sender.start()
    try:
        eventually(lambda: application.states()["completed"] >= 2, "tasks completed")
        yield
    finally:
        stop.set()
        sender.join()


def _what_became_of(application: Application) -> list[list[str]]:
    eventually(application.finished, "all completed", 300.0)
    return [
        ["tasks", str(dict(application.states()))],
        ["requests that had to be sent again", str(application.asked_again)],
    ]


def _deployed(application: Application, config: dict[str, Any], what: str) -> list[str]:
    [app] = config["applications"]
    before = {replica["replica_id"] for replica in application.replicas()}
    if what == "args":
        app["args"]["gpu_fraction"] = 0.5
    else:
        next(d for d in app["deployments"] if d["name"] == "WhisperReplica")["user_config"]["max_batch_s"] = 3.0
    started = time.monotonic()
    application.deploy(config)
    eventually(lambda: application.status()["status"] == "RUNNING", "a running application")
    after = {replica["replica_id"] for replica in application.replicas()}
    kept = len(before & after)
    return [
        f"{what} changed",
        f"RUNNING after {time.monotonic() - started:.1f} s, {kept} of {len(before)} replicas kept",
    ]


def rotate() -> None:
    """Rotate the API key and the database's user under load: for each step a settings file and `serve deploy`."""
    old, new = new_key(), new_key()
    with cluster(MURMURATION_DATABASE__URL=None) as running:
        application, database = running.application, running.database
        running.add_gpu_node()
        url = database.url("murmuration")
        successor = url.replace(f"//{USER}:{PASSWORD}@", f"//successor:{SUCCESSOR_PASSWORD}@")
        application.client.headers["Authorization"] = f"Bearer {old}"
        fixed = {"min_replicas": 2, "initial_replicas": 2, "max_replicas": 2}

        def deployed(name: str, url: str, *keys: str) -> str:
            file = _settings_file(application.home / f"{name}.yaml", url, keys)
            started = time.monotonic()
            application.deploy(serve_config(running.http_port, fixed, POLICY, config=str(file)))
            eventually(lambda: application.status()["status"] == "RUNNING", "a running application")
            return f"RUNNING after {time.monotonic() - started:.1f} s"

        deployed("old", url, old)
        ready(running)
        with _under_load(application):
            database.execute(f"CREATE USER 'successor'@'%' IDENTIFIED BY '{SUCCESSOR_PASSWORD}'")
            database.execute("GRANT ALL ON murmuration.* TO 'successor'@'%'")
            rows = [["the new user of the database, both keys", deployed("both", successor, old, new)]]
            application.client.headers["Authorization"] = f"Bearer {new}"
            rows.append(["the new key alone", deployed("new", successor, new)])
            database.execute(f"DROP USER '{USER}'@'%'")
        rows += _what_became_of(application)
        refused = application.client.get("/api/whisper/tasks/result", headers={"Authorization": f"Bearer {old}"})
        rows.append(["the old key", f"{refused.status_code} {refused.json()['detail']['error']}"])
    report("Keys and the database's user changed under load", ["what", "result"], rows)


def _settings_file(path: Path, url: str, keys: Sequence[str]) -> Path:
    """``configs/gpu.yaml`` with a database and keys, for one reader."""
    settings = yaml.safe_load((ROOT / "configs" / "gpu.yaml").read_text())
    settings["database"] = {"url": url}
    hashes = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
    settings["auth"] = {"keys": [{"name": "client", "sha256": hashes}]}
    path.touch(0o600)
    path.write_text(yaml.safe_dump(settings))
    return path


def speedup(replicas: Sequence[int], times: int) -> None:
    """Run one mixed load on more and more replicas, each of which can do ten times real time."""
    rng = np.random.default_rng(7)
    lengths = [
        float(length)
        for length in (*rng.uniform(3, 15, 40 * times), *rng.uniform(30, 120, 8 * times), *[300.0] * times)
    ]
    rng.shuffle(lengths)
    audio_s = sum(lengths)
    with cluster() as running:
        running.add_gpu_node(8)
        seconds = {count: _seconds_on(running, count, lengths) for count in replicas}
    rows = [
        [str(n), f"{took:.1f} s", f"{audio_s / took:.1f}", f"{audio_s / took / (10 * n):.2f}"]
        for n, took in seconds.items()
    ]
    title = f"{len(lengths)} recordings, {audio_s:.0f} s in all, replicas at 10× real time"
    report(title, ["replicas", "wall clock", "RTFx", "of 10 × n"], rows)


def _seconds_on(running: LocalCluster, replicas: int, lengths_s: list[float]) -> float:
    """Return the seconds from the first upload to the last task's end, each replica having loaded its engine before."""
    application = running.application
    fixed = {"min_replicas": replicas, "initial_replicas": replicas, "max_replicas": replicas}
    application.deploy(serve_config(running.http_port, fixed, POLICY))
    ready(running)
    eventually(lambda: len(application.replicas()) == replicas, "all replicas")
    application.created.clear()
    started = time.monotonic()
    load(application, lengths_s)
    eventually(application.finished, "all completed", 400.0)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
