"""What confinement of untrusted processes holds on this node: checked when a replica starts, and reported."""

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
"""What a process might do, by the part of ``Confinement`` that does not hold."""


def check_confinement(process: str, confinement: Confinement, required: ConfinementLevel) -> None:
    """Log what holds for a kind of process, and refuse to go on where that is less than required.

    Args:
        process: the kind, for sentences, such as ``decoder``.
        confinement: what holds.
        required: ``confinement.required`` of the settings.

    Raises:
        ConfigurationError: less holds than is required.
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
            f"{_consequence(confinement)}. Use Linux 6.12 or later with seccomp and Landlock, in a container that lets "
            "their calls through, and no crawl.js_runtime; or lower confinement.required."
        )


def extractor_confinement(processes: ExtractorProcesses, js_runtime: Path | None) -> Confinement:
    """Return what holds for the processes that read pages; blocks until the first of them has started.

    An event loop of its own runs it: Serve makes replicas within a running one.

    Raises:
        ReplicaLost: the process ended before it could answer.
    """
    with ThreadPoolExecutor(1) as thread:
        probing = processes.confinement(str(js_runtime) if js_runtime else None)
        return thread.submit(asyncio.run, probing).result()


def _consequence(confinement: Confinement) -> str:
    """Return what a process that was taken over could do."""
    return f"taken over, it could {', '.join(_FORBIDDEN[part] for part in confinement.missing)}"
