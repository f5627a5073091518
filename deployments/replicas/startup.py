"""What every replica does before anything else."""

from __future__ import annotations

import ray

from deployments.security.exposure import bind_replica_port
from deployments.security.private_files import make_private
from pipeline.observability import configure_logging
from pipeline.settings import Settings


def begin_replica(settings: Settings) -> None:
    """Keeps this replica's files to the service's user, its port to its machine, and sets up its log."""
    make_private(settings)
    configure_logging(settings.logging)
    bind_replica_port(ray.util.get_node_ip_address())
