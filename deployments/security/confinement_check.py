"""The check of this node's confinement of untrusted processes, which replicas run and log when they start."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.crawl.extractor_processes import ExtractorProcesses
from pipeline.domain.confinement_level import Confinement, ConfinementLevel
from pipeline.errors import ConfigurationError

logger = logging.getLogger(__name__)

_FORBIDDEN: Mapping[str, str] = {
    "filesystem": "change files",
    "network": "make connections",
    "processes": "start processes",
    "signals": "signal other processes",
    "privileges": "reach privileged calls",
    "memory": "exceed its memory",
}
"""Actions that stay possible, by the part of ``Confinement`` that is missing."""


def check_confinement(process: str, confinement: Confinement, required: ConfinementLevel) -> None:
    """Log the confinement of a kind of process, and raise if it is less than required.

    Args:
        process: the kind of process as messages name it, such as ``decoder``.
        confinement: the confinement on this node.
        required: ``confinement.required`` of the settings.

    Raises:
        ConfigurationError: the confinement is less than required.
    """
    level = confinement.level
    report = {"confined": process, "confinement": level.value, "missing": confinement.missing}
    if level is ConfinementLevel.FULL:
        logger.info("confinement of the %s: full", process, extra=report)
    else:
        logger.warning("confinement of the %s: %s; %s", process, level, _consequence(confinement), extra=report)
    if not level.satisfies(required):
        raise ConfigurationError(
            f"confinement.required is {required}, and on this node the confinement of the {process} is {level}: "
            f"{_consequence(confinement)}. Use Linux 6.12 or later with seccomp and Landlock, in a container that "
            "allows their calls, and no crawl.js_runtime; or lower confinement.required."
        )


def extractor_confinement(processes: ExtractorProcesses, js_runtime: Path | None) -> Confinement:
    """Return the confinement of the processes that read pages. Block until the first of them has started.

    The check runs in an event loop of its own, because Serve creates replicas inside a running one.

    Raises:
        ReplicaLost: the process ended before it answered.
    """
    with ThreadPoolExecutor(1) as thread:
        probing = processes.confinement(str(js_runtime) if js_runtime else None)
        return thread.submit(asyncio.run, probing).result()


def _consequence(confinement: Confinement) -> str:
    """Return a clause about the actions that an attacker in control of the process could take."""
    return f"taken over, it could {', '.join(_FORBIDDEN[part] for part in confinement.missing)}"
