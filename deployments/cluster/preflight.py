"""What has to hold before the service may run on this cluster; whatever does not is said in a sentence.

``refuse`` is called where the application is built and by each replica that opens the database, so that a deployment
that can't work fails with its reason. ``problems`` is asked again while the service runs, since nodes may join later.
"""

from __future__ import annotations

from deployments.cluster.nodes import alive_nodes
from pipeline.errors import ConfigurationError
from pipeline.settings import Settings


def problems(settings: Settings, nodes: int) -> tuple[str, ...]:
    """Why this configuration can't serve a cluster of so many nodes, a sentence each; empty where it can."""
    checks = (sqlite_problem,)
    return tuple(sentence for check in checks if (sentence := check(settings, nodes)))


def sqlite_problem(settings: Settings, nodes: int) -> str | None:
    """An SQLite file is one node's: each of several would open a file of its own, or share one without its locks."""
    if nodes < 2 or not settings.database_url.startswith("sqlite"):
        return None
    return (
        f"SQLite serves a single node, and this cluster has {nodes}: set MURMURATION_DATABASE__URL to a database that "
        "every node reaches, such as mysql+asyncmy://user:password@host/murmuration."
    )


def refuse(settings: Settings) -> None:
    """Raises ``ConfigurationError`` with every problem there is."""
    if reasons := problems(settings, len(alive_nodes())):
        raise ConfigurationError(" ".join(reasons))
