"""What confinement of a process holds, told from what it was refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

DONE = "done"
"""The result of a forbidden act that succeeded; otherwise it is the name of an ``errno``, such as ``EPERM``."""

UNTESTABLE_ERRORS = frozenset({"ENOSYS", "ENOENT", "ENODEV", "EAFNOSUPPORT", "EINVAL"})
"""Results that speak neither for nor against confinement: this kernel or machine does not have what was asked for."""


class ConfinementLevel(StrEnum):
    """How much of a confinement holds."""

    NONE = "none"
    PARTIAL = "partial"
    FULL = "full"

    def satisfies(self, required: ConfinementLevel) -> bool:
        """Return whether this level is at least the required one."""
        order = list(ConfinementLevel)
        return order.index(self) >= order.index(required)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a confined process can't do on this kernel.

    Attributes:
        filesystem: read, create, change or remove files that are not its own.
        network: make or accept connections that it is not meant to.
        processes: start processes or programs.
        signals: signal, trace or look into other processes.
        privileges: gain rights, raise its limits, make namespaces, mount, or reach rarely used parts of the kernel.
        memory: take more memory than its limit.
    """

    filesystem: bool = False
    network: bool = False
    processes: bool = False
    signals: bool = False
    privileges: bool = False
    memory: bool = False

    @property
    def level(self) -> ConfinementLevel:
        """Full if everything holds, none if nothing does."""
        holds = [getattr(self, name) for name in self.__slots__]
        if all(holds):
            return ConfinementLevel.FULL
        return ConfinementLevel.PARTIAL if any(holds) else ConfinementLevel.NONE

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of what does not hold."""
        return tuple(name for name in self.__slots__ if not getattr(self, name))


def confinement_of(results: Mapping[str, Mapping[str, str]]) -> Confinement:
    """Return what holds, by the results of forbidden acts.

    A part holds if none of its acts succeeded and at least one was refused.

    Args:
        results: for each attribute of ``Confinement``, the result of each act by the act's name.
    """
    return Confinement(**{name: _holds(results.get(name, {})) for name in Confinement.__slots__})


def _holds(results: Mapping[str, str]) -> bool:
    outcomes = set(results.values()) - UNTESTABLE_ERRORS
    return DONE not in outcomes and bool(outcomes)
