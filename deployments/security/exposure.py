"""Whether strangers can reach the service or the Ray processes it runs in; the whole picture: docs/security.md."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray.serve._private import replica as serve_replica
from ray.serve.context import _get_global_client

from deployments.front.proxies import ProxyKeeper, ServeProxies, bound_this_process, bounds_of, keep_bounded
from deployments.security.private_files import narrow_token
from pipeline.settings import AuthSettings, ConnectionSettings, Settings

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 (not bound: recognised)

logger = logging.getLogger(__name__)


def serve_host() -> str:
    """The address that Serve's HTTP proxies listen on."""
    client = _get_global_client()
    return str(client.http_config.host or ALL_INTERFACES)


def warn_if_open(settings: AuthSettings, host: str) -> None:
    """Says so in the log if everybody who reaches a network may use the service."""
    if not settings.keys and not is_loopback(host):
        logger.warning(
            "everybody who reaches this address may use the service: set auth.keys (see docs/keys.md), "
            "or http_options.host to 127.0.0.1",
            extra={"host": host},
        )


def warn_of_ray(node_address: str, *, with_token: bool) -> None:
    """Says in the log what Ray itself listens on, if that is more than this machine."""
    if is_loopback(node_address):
        return
    if with_token:
        logger.info(
            "Ray's own ports listen on every interface and ask for its token: a firewall should keep others off them, "
            "or `python -m deployments.run` start the service on this machine alone (see docs/security.md)"
        )
    else:
        logger.warning(
            "Ray's own ports (GCS, raylet, workers, replicas) listen on every interface and run the code of everybody "
            "who reaches them: set RAY_AUTH_MODE=token on every node, or start with `python -m deployments.run` "
            "on a single machine (see docs/security.md)"
        )


@dataclass(frozen=True)
class HttpFront:
    """The HTTP servers in front of the service, and whether they are bounded."""

    keeper: ProxyKeeper
    host: str
    settings: ConnectionSettings

    def problems(self) -> tuple[str, ...]:
        """Why the service should not be used as it is reached, a sentence each."""
        failure = self.keeper.failure
        return (failure,) if failure and self.settings.required and not is_loopback(self.host) else ()


def guard(settings: Settings) -> HttpFront:
    """Bounds every HTTP server of the service, now and as they come, and says in the log what is open."""
    bounds = bounds_of(settings.connections)
    bound_this_process(bounds)
    narrow_token()
    front = HttpFront(ProxyKeeper(ServeProxies(), bounds), serve_host(), settings.connections)
    keep_bounded(front.keeper)
    warn_if_open(settings.auth, front.host)
    warn_of_ray(ray.util.get_node_ip_address(), with_token=is_token_auth_enabled())
    return front


def bind_replica_port(node_address: str) -> None:
    """Keeps the port of this replica for other deployments' calls to this machine, where the node is on it alone.

    Serve opens it on every interface (Ray 2.60, ``ReplicaBase._on_initialized``), used or not, after the replica's
    constructor has run. It unpickles what it is sent, and asks for Ray's token only if there is one.
    """
    if is_loopback(node_address):
        add_port = serve_replica.add_port_to_grpc_server
        serve_replica.add_port_to_grpc_server = _LoopbackPortBinder(getattr(add_port, "add_port", add_port))


@dataclass(frozen=True)
class _LoopbackPortBinder:
    """Stands in for Serve's ``add_port_to_grpc_server``."""

    add_port: Any

    def __call__(self, server: Any, _address: str) -> Any:
        return self.add_port(server, "127.0.0.1:0")


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
