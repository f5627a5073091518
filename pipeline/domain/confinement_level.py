"""The level of a process's confinement, derived from the acts that it was refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

DONE = "done"
"""The result of a forbidden act that succeeded. The result of any other act is the name of an ``errno``: ``EPERM``."""

UNTESTABLE_ERRORS = frozenset({"ENOSYS", "ENOENT", "ENODEV", "EAFNOSUPPORT", "EINVAL"})
"""Results that say nothing about confinement: this kernel or machine lacks the feature that the act uses."""


class ConfinementLevel(StrEnum):
    """The extent to which a confinement holds."""

    NONE = "none"
    PARTIAL = "partial"
    FULL = "full"

    def satisfies(self, required: ConfinementLevel) -> bool:
        """Return whether this level is at least the required one."""
        order = list(ConfinementLevel)
        return order.index(self) >= order.index(required)


@dataclass(frozen=True, slots=True)
class Confinement:
    """The kinds of acts that the kernel keeps a confined process from, each true if it is refused.

    Attributes:
        filesystem: read, create, change or remove files that are not its own.
        network: make or accept connections that it is not meant to.
        processes: start processes or programs.
        signals: signal, trace or inspect other processes.
        privileges: gain rights, raise its limits, create namespaces, mount, or reach rarely used parts of the kernel.
        memory: allocate more memory than its limit.
    """

    filesystem: bool = False
    network: bool = False
    processes: bool = False
    signals: bool = False
    privileges: bool = False
    memory: bool = False

    @property
    def level(self) -> ConfinementLevel:
        """Full if every part holds, none if no part does, else partial."""
        holds = [getattr(self, name) for name in self.__slots__]
        if all(holds):
            return ConfinementLevel.FULL
        return ConfinementLevel.PARTIAL if any(holds) else ConfinementLevel.NONE

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of the parts that do not hold."""
        return tuple(name for name in self.__slots__ if not getattr(self, name))


def confinement_of(results: Mapping[str, Mapping[str, str]]) -> Confinement:
    """Return the parts of the confinement that hold, from the results of forbidden acts.

    A part holds if none of its acts succeeded and at least one was refused.

    Args:
        results: for each attribute of ``Confinement``, the result of each act by the act's name.
    """
    return Confinement(**{name: _holds(results.get(name, {})) for name in Confinement.__slots__})


def _holds(results: Mapping[str, str]) -> bool:
    outcomes = set(results.values()) - UNTESTABLE_ERRORS
    return DONE not in outcomes and bool(outcomes)
