"""The resources of a running service's processes: seconds of CPU and megabytes of memory, by deployment."""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import psutil

MEBIBYTE = 1024 * 1024
SAMPLE_PERIOD_S = 0.2


@dataclass(slots=True)
class Usage:
    """One process while it was watched; resident memory in MiB, CPU in seconds."""

    name: str
    base_mib: float
    peak_mib: float
    cpu_start_s: float
    cpu_end_s: float

    @property
    def cpu_s(self) -> float:
        return self.cpu_end_s - self.cpu_start_s

    @property
    def growth_mib(self) -> float:
        return self.peak_mib - self.base_mib


@dataclass
class Watch:
    """Samples every process of the service that listens on ``port`` of this machine, while the block runs."""

    port: int
    usages: dict[int, Usage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._root = service_root(self.port)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def by_memory(self) -> list[Usage]:
        """Return every process, the one that grew most first."""
        return sorted(self.usages.values(), key=lambda usage: -usage.growth_mib)

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_PERIOD_S):
            self._sample()

    def _sample(self) -> None:
        for process in (self._root, *self._root.children(recursive=True)):
            try:
                self._note(process)
            except psutil.NoSuchProcess:  # it ended between being listed and being asked
                continue

    def _note(self, process: psutil.Process) -> None:
        with process.oneshot():
            times, memory_mib = process.cpu_times(), process.memory_info().rss / MEBIBYTE
            cpu_s = times.user + times.system
            usage = self.usages.setdefault(process.pid, Usage(_name(process), memory_mib, memory_mib, cpu_s, cpu_s))
        usage.peak_mib = max(usage.peak_mib, memory_mib)
        usage.cpu_end_s = cpu_s


def cpu_by_name(root: psutil.Process) -> dict[str, float]:
    """Return the seconds of CPU of a process and its descendants by name, with those of children that have ended."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it ended between being listed and being asked
            seconds[_name(process)] += sum(process.cpu_times()[:4])
    return seconds


def service_root(port: int) -> psutil.Process:
    """Return the process below which all of the service runs: the topmost ancestor of the HTTP proxy within Ray."""
    listeners = (
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr
        and connection.laddr.port == port
        and connection.pid
    )
    proxy = next(listeners, None)
    if proxy is None:
        raise LookupError(f"No process of this machine listens on port {port}.")
    lineage = [psutil.Process(proxy), *psutil.Process(proxy).parents()]
    return next(process for process in reversed(lineage) if _is_of_ray(process))


def _is_of_ray(process: psutil.Process) -> bool:
    command = " ".join(process.cmdline())
    return "raylet" in command or command.startswith("ray::") or "serve run" in command


def _name(process: psutil.Process) -> str:
    """``Splitter`` for a replica of it, ``ProxyActor`` for the HTTP proxy, else the program's own name."""
    title = process.cmdline()[0] if process.cmdline() else process.name()
    if not title.startswith("ray::"):
        return process.name()
    return title.removeprefix("ray::").split()[0].split(":")[-1].split(".")[0]
