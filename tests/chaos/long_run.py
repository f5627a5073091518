"""Tasks of every size under random kills of every kind: ``python -m tests.chaos.long_run --minutes 10 --tasks 300``.

Two nodes, a MariaDB and two WhisperReplicas on this machine. At the end every task must be completed with its text,
every callback delivered under one id, and no file left. Prints how long each kind of kill was felt.
"""

from __future__ import annotations

import argparse
import random
import statistics
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.chaos.batch import PRIORITIES, Batch
from tests.chaos.service import (
    CONTROLLER,
    DATABASE,
    PROXY,
    WORKER_NODE,
    ChaosService,
    on_two_nodes,
    receiving,
)
from tests.support.tables import table
from tests.support.waiting import eventually

KINDS = ("WhisperReplica", "Splitter", "Dispatcher", "Ingress", CONTROLLER, PROXY, DATABASE, WORKER_NODE)
SIZES, WEIGHTS = (1, 2, 5, 15), (40, 35, 18, 7)
"""Sentences of a recording, 4.5 s each, and how often."""
PAUSE_S = (8.0, 16.0)
"""From the moment a kill is not felt any more to the next."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--tasks", type=int, default=300)
    arguments.add_argument("--seed", type=int, default=1)
    chosen = arguments.parse_args()
    chance = random.Random(chosen.seed)
    with on_two_nodes() as service, receiving() as receiver:
        batch = Batch(service, receiver)
        began = time.monotonic()
        submitting = _Submitting(batch, chosen.tasks, chosen.minutes * 60, random.Random(chosen.seed + 1))
        kills = _Kills(service, chance)
        while time.monotonic() - began < chosen.minutes * 60:
            time.sleep(chance.uniform(*PAUSE_S))
            kills.one()
        submitting.join()
        records = batch.check_nothing_is_lost(patience_s=900.0)
        took_s = time.monotonic() - began
        received = len(receiver.received)
    attempts = Counter(record["attempts"] for record in records.values())
    print(f"{len(records)} tasks, {kills.count} kills, {took_s:.0f} s: all completed with the right text")
    print(table(["kill", "times", "back after: median", "longest"], kills.rows()))
    print(f"attempts: {dict(sorted(attempts.items()))}; callbacks received: {received} for {len(records)} tasks")


class _Submitting(threading.Thread):
    """Submits tasks of mixed size and priority, spread over most of the time."""

    def __init__(self, batch: Batch, tasks: int, seconds: float, chance: random.Random) -> None:
        super().__init__()
        self._batch, self._tasks, self._chance = batch, tasks, chance
        self._pause_s = 0.85 * seconds / tasks
        self._failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        began = time.monotonic()
        try:
            for number in range(self._tasks):
                [size] = self._chance.choices(SIZES, WEIGHTS)
                self._batch.submit(size, self._chance.choice(PRIORITIES))
                time.sleep(max(0.0, began + (number + 1) * self._pause_s - time.monotonic()))
        except BaseException as failure:
            self._failure = failure

    def join(self, timeout: float | None = None) -> None:
        super().join(timeout)
        if self._failure is not None:
            raise self._failure


@dataclass
class _Kills:
    """Kills one kind after another, and notes how long each was felt."""

    service: ChaosService
    chance: random.Random
    felt_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def one(self) -> None:
        """Choose one of the kinds that were killed least often."""
        fewest = min(len(self.felt_s[kind]) for kind in KINDS)
        kind = self.chance.choice([kind for kind in KINDS if len(self.felt_s[kind]) == fewest])
        began = time.monotonic()
        before = self._pids(kind)
        self.service.kill(kind)
        eventually(lambda: self._is_back(kind, before), f"{kind} is back")
        self.felt_s[kind].append(time.monotonic() - began)
        print(f"{kind}: back after {self.felt_s[kind][-1]:.1f} s", flush=True)

    @property
    def count(self) -> int:
        return sum(map(len, self.felt_s.values()))

    def rows(self) -> list[list[str]]:
        return [
            [kind, str(len(felt)), f"{statistics.median(felt):.1f} s", f"{max(felt):.1f} s"]
            for kind, felt in sorted(self.felt_s.items())
            if felt
        ]

    def _pids(self, kind: str) -> set[int]:
        return set() if kind == DATABASE else {process.pid for process in self.service.victims(kind)}

    def _is_back(self, kind: str, before: set[int]) -> bool:
        if kind != DATABASE and not self._pids(kind) - before:
            return False
        return self.service.is_ready()


if __name__ == "__main__":
    main()
