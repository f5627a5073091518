"""The memory, the files and the lives of the service's processes while they are watched."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path

import psutil

from tests.support.processes import descendants

MEBIBYTE = 1024 * 1024
LONG_LIVED = ("ServeController", "ProxyActor", "HAProxyManager", "Ingress", "Dispatcher", "WhisperReplica")
"""Of these each process is meant to live as long as the service; the others come and go with the load."""


class Memory:
    """Proportional set size of every process of the service, by deployment; forked children share what they share."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._base: dict[str, float] = {}
        self._peak: dict[str, float] = {}
        self._peak_total = 0.0
        self._staying: dict[int, str] = {}
        self.lost: Counter[str] = Counter()

    def sample(self) -> float:
        """Take one sample; return by how many MiB the service has grown."""
        sizes: defaultdict[str, float] = defaultdict(float)
        staying: dict[int, str] = {}
        for process in descendants(self._pid):
            size_mib = _pss_mib(process.pid)
            if size_mib is None:
                continue
            name, is_own = _named(process)
            sizes[name] += size_mib
            if is_own and name in LONG_LIVED:
                staying[process.pid] = name
        if not self._base:
            self._base = dict(sizes)
        for name, size_mib in sizes.items():
            self._peak[name] = max(self._peak.get(name, 0.0), size_mib)
        self.lost.update(name for pid, name in self._staying.items() if pid not in staying)
        self._staying = staying
        self._peak_total = max(self._peak_total, sum(sizes.values()))
        return sum(sizes.values()) - sum(self._base.values())

    def forget(self) -> None:
        """Count growth from the next sample on."""
        self._base, self._peak, self._peak_total = {}, {}, 0.0

    def growth(self) -> tuple[dict[str, float], float]:
        grown = {name: peak - self._base.get(name, 0.0) for name, peak in self._peak.items()}
        return grown, self._peak_total - sum(self._base.values())


def _pss_mib(pid: int) -> float | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended between being listed and being asked
        return None
    pss = next((line for line in lines if line.startswith("Pss:")), None)
    return None if pss is None else int(pss.split()[1]) / 1024


def _named(process: psutil.Process) -> tuple[str, bool]:
    """Return the deployment of a process, and whether it is the replica itself rather than a child of it."""
    try:
        if (name := _title(process)) is not None:
            return name, True
        for parent in process.parents():
            if (name := _title(parent)) is not None:
                return name, False
        return process.name(), True
    except psutil.Error:
        return "gone", False


def _title(process: psutil.Process) -> str | None:
    """``Splitter`` for a replica of it, ``ProxyActor`` for the HTTP proxy."""
    title = (process.cmdline() or [""])[0]
    if not title.startswith("ray::"):
        return None
    return title.removeprefix("ray::").split()[0].split(":")[-1].split(".")[0].partition("#")[0]


def disk_mib(folder: Path) -> float:
    total = 0.0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(path) / name).lstat().st_blocks * 512
            except OSError:  # it went between being listed and being asked
                continue
    return total / MEBIBYTE
