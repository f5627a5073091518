"""Preparation of a replica's process, before anything else in it."""

from __future__ import annotations

import ray

from deployments.security.exposure import bind_replica_port
from deployments.security.private_files import make_private
from pipeline.event_log import configure_logging
from pipeline.settings import Settings


def begin_replica(settings: Settings) -> None:
    """Restrict this replica's files to the service's user and its TCP port to its machine, and configure its log.

    The port stays open to the network where the node is on it.
    """
    make_private(settings)
    configure_logging(settings.logging)
    bind_replica_port(ray.util.get_node_ip_address())
