"""The cost of a task apart from decoding: tasks a second, and milliseconds of CPU by process.

A service of its own is started with the engine ``waiting``, which takes no CPU and almost no time. Each client uploads
a clip of one second, waits for its result, and begins again. The database is SQLite or a private MariaDB.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from pipeline.domain.audio.spans import SAMPLE_RATE
from tests.benchmarks.client import ServiceClient
from tests.benchmarks.processes import cpu_by_name, service_root
from tests.benchmarks.reports import report
from tests.support import recordings, speech
from tests.support.mariadb import running_mariadb
from tests.support.processes import ROOT, free_port, haproxy, on_port, running, surroundings
from tests.support.tables import percentile

CREATE, RESULT = "/api/whisper/tasks/create", "/api/whisper/tasks/result"
RTFX = 2000
WARM_UP_TASKS = 40
THIS_CLIENT = "(this client)"
LEAST_SHOWN = 0.05


@dataclass(frozen=True, slots=True)
class Round:
    """The figures of one round of tasks; CPU in milliseconds a task, by process."""

    seconds: float
    create_s: list[float]
    cpu_ms: Mapping[str, float]

    @property
    def service_ms(self) -> float:
        return sum(ms for name, ms in self.cpu_ms.items() if name != THIS_CLIENT)


def main() -> None:
    chosen = _arguments()
    with tempfile.TemporaryDirectory(prefix="m-", dir="/tmp") as folder, _service(chosen, Path(folder)) as url:
        idle = _idle(url, chosen.idle) if chosen.idle else None
        clip = _clip()
        asyncio.run(_run(url, clip, WARM_UP_TASKS, chosen.clients))
        rounds = [_measure(url, clip, chosen.tasks, chosen.clients) for _ in range(chosen.rounds)]
    if idle is not None:
        rows = [[name, f"{idle[name]:.1f} %"] for name in _by_size(idle)]
        report("At rest", ["process", "of a core"], [*rows, ["all", f"{sum(idle.values()):.1f} %"]])
    _report(rounds, chosen.tasks)


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tasks", type=int, default=300, help="tasks of a round")
    arguments.add_argument("--clients", type=int, default=16, help="clients, each with one task at a time")
    arguments.add_argument("--rounds", type=int, default=3, help="rounds after a warm-up; medians are shown")
    arguments.add_argument("--database", choices=("sqlite", "mariadb"), default="sqlite")
    arguments.add_argument("--dispatchers", type=int, default=1, help="replicas of the Dispatcher")
    arguments.add_argument("--front", choices=("proxy", "haproxy"), default="proxy", help="Serve's proxy, or HAProxy")
    arguments.add_argument("--idle", type=float, default=0.0, help="seconds for which the service is watched at rest")
    return arguments.parse_args()


@contextmanager
def _service(chosen: argparse.Namespace, home: Path) -> Iterator[str]:
    """Run a service in a folder until the block ends, and return its URL once it is ready."""
    with _database(chosen.database, home) as database_url:
        port = free_port()
        config = home / "serve_config.yaml"
        config.write_text(yaml.safe_dump(_serve_config(home, port, database_url, chosen.dispatchers)))
        front = haproxy(home) if chosen.front == "haproxy" else {}
        with running([sys.executable, "-m", "ray.serve.scripts", "run", str(config)], surroundings(home) | front):
            url = f"http://127.0.0.1:{port}"
            ServiceClient(url).wait_until_ready(180.0)
            yield url


@contextmanager
def _database(kind: str, home: Path) -> Iterator[str | None]:
    if kind == "sqlite":
        yield None
        return
    folder = home / "mariadb"
    folder.mkdir()
    home.chmod(0o755)  # the server runs as a user of its own
    with running_mariadb(folder) as server:
        yield server.create_database("murmuration")


def _serve_config(home: Path, port: int, database_url: str | None, dispatchers: int) -> dict[str, Any]:
    settings = yaml.safe_load((ROOT / "configs" / "cpu.yaml").read_text())
    settings["asr"] |= {"engine": "waiting", "model": f"waiting-{RTFX}x"}
    if database_url:
        settings["database"] = {"url": database_url}
    file = home / "settings.yaml"
    file.write_text(yaml.safe_dump(settings))
    config = on_port(yaml.safe_load((ROOT / "serve_config.yaml").read_text()), port)
    config["applications"][0]["args"]["config"] = str(file)
    for deployment in config["applications"][0]["deployments"]:
        if deployment["name"] == "Dispatcher":
            deployment["num_replicas"] = dispatchers
    return config


def _clip() -> bytes:
    """Return a second of speech as a WAV file."""
    samples = speech.load(speech.of_language("en")[0].path)
    return recordings.wav(samples[:SAMPLE_RATE])


def _idle(url: str, seconds: float) -> dict[str, float]:
    """Return the share of a core that each process takes at rest, in percent."""
    root = service_root(_port(url))
    before, began = cpu_by_name(root), time.monotonic()
    time.sleep(seconds)
    return _difference(before, cpu_by_name(root), 100 / (time.monotonic() - began))


def _measure(url: str, clip: bytes, tasks: int, clients: int) -> Round:
    root, own_before = service_root(_port(url)), time.process_time()
    before, began = cpu_by_name(root), time.monotonic()
    create_s = asyncio.run(_run(url, clip, tasks, clients))
    seconds = time.monotonic() - began
    own_ms = 1000 * (time.process_time() - own_before) / tasks
    return Round(seconds, create_s, _difference(before, cpu_by_name(root), 1000 / tasks) | {THIS_CLIENT: own_ms})


async def _run(url: str, clip: bytes, tasks: int, clients: int) -> list[float]:
    """Run all tasks and return the seconds that each creation took."""
    numbers, create_s = iter(range(tasks)), list[float]()

    async def client(session: aiohttp.ClientSession) -> None:
        for _ in numbers:
            began = time.perf_counter()
            task_id = await _create(session, clip)
            create_s.append(time.perf_counter() - began)
            await _wait_for_end(session, task_id)

    async with aiohttp.ClientSession(url, raise_for_status=True) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return create_s


async def _create(session: aiohttp.ClientSession, clip: bytes) -> int:
    form = aiohttp.FormData({"language": "en"})
    form.add_field("file_upload", clip, filename="clip.wav", content_type="audio/wav")
    async with session.post(CREATE, data=form) as answer:
        return int((await answer.json())["data"]["id"])


async def _wait_for_end(session: aiohttp.ClientSession, task_id: int) -> None:
    status = "queued"
    while status in ("queued", "processing"):
        async with session.get(RESULT, params={"task_id": task_id, "wait_s": 30}) as answer:
            record = (await answer.json())["data"]
        status = record["status"]
    if status != "completed" or not record["result"]["text"]:
        raise RuntimeError(f"Task {task_id} ended as {status}: {record}")


def _report(rounds: list[Round], tasks: int) -> None:
    names = {name for each in rounds for name in each.cpu_ms}
    cpu_ms = {name: statistics.median(each.cpu_ms.get(name, 0.0) for each in rounds) for name in names}
    rows = [[name, f"{cpu_ms[name]:.1f}"] for name in _by_size(cpu_ms)]
    service_ms = statistics.median(each.service_ms for each in rounds)
    report("CPU of a task", ["process", "ms"], [*rows, ["all of the service", f"{service_ms:.1f}"]])
    creations = [seconds for each in rounds for seconds in each.create_s]
    rate = statistics.median(tasks / each.seconds for each in rounds)
    times = [f"{1000 * percentile(creations, share):.0f} ms" for share in (50, 95)]
    report("Rate", ["tasks a second", "create p50", "create p95"], [[f"{rate:.1f}", *times]])


def _by_size(figures: Mapping[str, float]) -> list[str]:
    """Return the names of the figures that are worth a line, largest first."""
    return sorted((name for name, figure in figures.items() if figure >= LEAST_SHOWN), key=lambda name: -figures[name])


def _difference(before: Mapping[str, float], after: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: (seconds - before.get(name, 0.0)) * factor for name, seconds in after.items()}


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


if __name__ == "__main__":
    main()
