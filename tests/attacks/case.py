"""One attack, declared: what the attacker does, how the victim uses the service meanwhile, and what must hold."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.attacks.hostile_site import HostileSite
from tests.attacks.service import Target

MAX_GROWTH_MIB = 256.0
"""How much more memory the whole service may hold under an attack, unless a case says otherwise."""
MAX_DISK_MIB = 512.0
"""How many more files it may keep, likewise."""

PATIENCE_S = 60.0
"""When a test gives a clip up: a bound for a busy machine, not what is expected."""


@dataclass
class Scene:
    """A running attack.

    Attributes:
        target: the service.
        site: the web that the attacker brings along.
        small: whether the attack is only to show that it is answered, for a test of seconds.
        notes: what the attacker saw, for the report.
        flaws: what the attacker saw and must not have.
    """

    target: Target
    site: HostileSite
    small: bool = False
    notes: list[str] = field(default_factory=list)
    flaws: list[str] = field(default_factory=list)
    _begun: threading.Event = field(default_factory=threading.Event)
    _held: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)

    def begin(self) -> None:
        """Signal that the attack has begun: from here on the victim's clips are sent."""
        self._begun.set()

    @property
    def is_in(self) -> bool:
        return self._begun.is_set()

    @property
    def is_held(self) -> bool:
        """Return whether the attacker has done all that it does."""
        return self._held.is_set()

    def end(self) -> None:
        """Signal that the victim has its responses."""
        self._over.set()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    async def hold(self) -> None:
        """Continue the attack until the victim has its responses."""
        self.begin()
        self._held.set()
        while not self.is_over:
            await asyncio.sleep(0.1)

    def size(self, full: int, small: int) -> int:
        """Return the number of something: ``full`` in a measurement, ``small`` in a test."""
        return small if self.small else full

    def note_statuses(self, what: str, statuses: Counter[str]) -> None:
        """Add the statuses of responses to the report; a status of 500 is a flaw."""
        told = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
        self.notes.append(f"{what}: {told}")
        if any(status == "500" for status in statuses):
            self.flaws.append(f"{what} answered 500")


Attack = Callable[[Scene], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Case:
    """An attack and its bounds.

    Attributes:
        name: on the command line.
        title: in the report.
        attack: what the attacker does; returns when it is over.
        way: of the victim's clips; see ``victim.Clips``.
        clips: how many of them; 0 for none.
        clip_limit_s: after which one counts as lost.
        settings: variables of the service that this case needs.
        max_growth_mib: of the whole service.
        max_process_growth_mib: of each deployment, counted from when the attack is in; ``None``: any.
        max_disk_mib: of all its files.
        spoils: whether the service is of no use afterwards, and is started again.
        seconds: how long the attack is watched at least.
        quick: whether its small form is a test of the suite.
    """

    name: str
    title: str
    attack: Attack
    way: str = "upload"
    clips: int = 2
    clip_limit_s: float = 30.0
    settings: Mapping[str, str] = field(default_factory=dict)
    max_growth_mib: float = MAX_GROWTH_MIB
    max_process_growth_mib: float | None = None
    max_disk_mib: float = MAX_DISK_MIB
    spoils: bool = False
    seconds: float = 5.0
    quick: bool = False

    def made_small(self) -> Case:
        """Return the case for a test: as patient as a busy machine needs, and no longer than it takes."""
        return replace(self, clips=min(self.clips, 1), clip_limit_s=PATIENCE_S, seconds=0.0, spoils=False)
