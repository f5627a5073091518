"""Observation of a service under attack: its health, the victim's clips, and the memory that the attack costs.

Observation runs in a process of its own, so that an attack that keeps its own process busy slows no figure.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableSequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import httpx

from tests.attacks.holdings import Memory, disk_mib
from tests.attacks.victim import ClipFailed, Clips, Victim

HEALTH_PERIOD_S = 0.1
HEALTH_TIMEOUT_S = 5.0
MEMORY_PERIOD_S = 0.5
DISK_PERIOD_S = 1.0
CLIP_PAUSE_S = 0.5


@dataclass(frozen=True)
class Plan:
    """The plan of an observation.

    Attributes:
        port: where the service takes requests.
        pid: its first process.
        home: the folder of its files.
        clips: what the victim sends.
        memory_from_begin: whether growth is counted from when the attack is in, and not from before it.
    """

    port: int
    pid: int
    home: Path
    clips: Clips
    memory_from_begin: bool = False


Numbers = MutableSequence[float]
"""Shared with the process that observes."""


@dataclass
class Observed:
    """The results of an observation. Times in seconds, ``inf`` where no response came; sizes in MiB.

    Attributes:
        health_s: of each ``health/check``.
        clips_s: of each of the victim's clips, from its first byte to its transcript.
        failures: the reasons why clips or checks got none, with their number.
        growth_mib: peak of the proportional set size over that before the attack, by deployment.
        total_growth_mib: the same of the whole service.
        disk_mib: peak of the service's files over what was there before.
        lost: processes that ended although they were to stay, by name.
    """

    health_s: list[float] = field(default_factory=list)
    clips_s: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    growth_mib: dict[str, float] = field(default_factory=dict)
    total_growth_mib: float = 0.0
    disk_mib: float = 0.0
    lost: Counter[str] = field(default_factory=Counter)


class Observer:
    """An observation under way.

    Attributes:
        memory_mib: what the service holds now.
        disk_mib: by how much its files have grown until now.
    """

    def __init__(self, plan: Plan) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._clips_done, self._begun, self._over = context.Event(), context.Event(), context.Event()
        self._now = context.Array("d", 2)
        self._process = context.Process(
            target=_observe, args=(plan, theirs, self._begun, self._clips_done, self._over, self._now)
        )
        self._process.start()
        self._connection.recv()  # it has seen the service at rest

    def begin_clips(self) -> None:
        """Allow the victim's clips to be sent: the attack has begun."""
        self._begun.set()

    @property
    def clips_done(self) -> bool:
        return self._clips_done.is_set()

    @property
    def growth_mib(self) -> float:
        return float(self._now[0])

    @property
    def disk_mib(self) -> float:
        return float(self._now[1])

    def finish(self) -> Observed:
        """End the observation and return its results."""
        self._begun.set()
        self._over.set()
        observed: Observed = self._connection.recv()
        self._process.join()
        return observed


@contextmanager
def observing(plan: Plan) -> Iterator[Observer]:
    """Run an observation, which ends with the block if it was not finished before."""
    observer = Observer(plan)
    try:
        yield observer
    finally:
        if observer._process.is_alive():
            observer._process.terminate()
            observer._process.join()


def _observe(
    plan: Plan, connection: Connection, begun: Event, clips_done: Event, over: Event, now: list[float]
) -> None:
    connection.send(asyncio.run(_Eyes(plan, connection, begun, clips_done, over, now).run()))


class _Eyes:
    def __init__(
        self, plan: Plan, connection: Connection, begun: Event, clips_done: Event, over: Event, now: list[float]
    ) -> None:
        self._plan, self._connection = plan, connection
        self._begun, self._clips_done, self._over = begun, clips_done, over
        self._now = now
        self._seen = Observed()
        self._memory = Memory(plan.pid)

    async def run(self) -> Observed:
        self._memory.sample()
        disk_before = disk_mib(self._plan.home)
        self._connection.send("ready")
        loops = [
            asyncio.create_task(self._watch_memory()),
            asyncio.create_task(self._watch_disk(disk_before)),
            asyncio.create_task(self._watch_health()),
            asyncio.create_task(self._send_clips()),
        ]
        await asyncio.gather(*loops)
        self._seen.growth_mib, self._seen.total_growth_mib = self._memory.growth()
        self._seen.lost = self._memory.lost
        return self._seen

    async def _watch_memory(self) -> None:
        rebased = not self._plan.memory_from_begin
        while not self._over.is_set():
            if not rebased and self._begun.is_set():
                self._memory.forget()
                rebased = True
            self._now[0] = await asyncio.to_thread(self._memory.sample)
            await asyncio.sleep(MEMORY_PERIOD_S)
        await asyncio.to_thread(self._memory.sample)

    async def _watch_disk(self, before_mib: float) -> None:
        while not self._over.is_set():
            grown_mib = await asyncio.to_thread(disk_mib, self._plan.home) - before_mib
            self._seen.disk_mib = max(self._seen.disk_mib, grown_mib)
            self._now[1] = grown_mib
            await asyncio.sleep(DISK_PERIOD_S)

    async def _watch_health(self) -> None:
        """Check the health on a connection each, as a load balancer does; no check waits for the one before."""
        async with asyncio.TaskGroup() as checks:
            while not self._over.is_set():
                checks.create_task(self._check_health())
                await asyncio.sleep(HEALTH_PERIOD_S)

    async def _check_health(self) -> None:
        started = time.monotonic()
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                status = await _status_of(self._plan.port, "/api/health/check")
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self._seen.health_s.append(math.inf)
            self._seen.failures[f"health: {type(error).__name__}"] += 1
            return
        self._seen.health_s.append(time.monotonic() - started if status == 200 else math.inf)
        if status != 200:
            self._seen.failures[f"health: {status}"] += 1

    async def _send_clips(self) -> None:
        while not self._begun.is_set():
            await asyncio.sleep(0.05)
        try:
            async with Victim(self._plan.port, self._plan.clips) as victim:
                while len(self._seen.clips_s) < self._plan.clips.count:
                    await self._send_clip(victim.transcribe)
                    await asyncio.sleep(CLIP_PAUSE_S)
        finally:
            self._clips_done.set()

    async def _send_clip(self, transcribe: Callable[[], Awaitable[None]]) -> None:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._plan.clips.limit_s):
                await transcribe()
            self._seen.clips_s.append(time.monotonic() - started)
        except (TimeoutError, httpx.HTTPError, ClipFailed) as error:
            self._seen.clips_s.append(math.inf)
            self._seen.failures[f"clip: {type(error).__name__} {error}"[:120]] += 1


async def _status_of(port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        return int((await reader.readuntil(b"\r\n")).split(b" ")[1])
    finally:
        writer.close()
