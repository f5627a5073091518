"""Checks that this cluster fits the configuration; each failed check returns a sentence.

The application builder and each replica that opens the database call ``refuse``, so that a deployment that can't work
fails with its reason. The Dispatcher calls ``problems`` again while the service runs, since nodes may join later.
"""

from __future__ import annotations

from deployments.cluster.nodes import alive_nodes
from pipeline.errors import ConfigurationError
from pipeline.settings import Settings


def problems(settings: Settings, nodes: int) -> tuple[str, ...]:
    """Return a sentence for each reason why this configuration can't serve a cluster of so many nodes."""
    checks = (sqlite_problem,)
    return tuple(sentence for check in checks if (sentence := check(settings, nodes)))


def sqlite_problem(settings: Settings, nodes: int) -> str | None:
    """Return a sentence if several nodes would use SQLite: each would open its own file, or share one without locks."""
    if nodes < 2 or not settings.database_url.startswith("sqlite"):
        return None
    return (
        f"SQLite serves a single node, and this cluster has {nodes}: set MURMURATION_DATABASE__URL to a database that "
        "every node reaches, such as mysql+asyncmy://user:password@host/murmuration."
    )


def refuse(settings: Settings) -> None:
    """Raise ``ConfigurationError`` with all problems, if there are any."""
    if reasons := problems(settings, len(alive_nodes())):
        raise ConfigurationError(" ".join(reasons))
