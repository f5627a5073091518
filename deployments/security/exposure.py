"""Protection of the service and its Ray processes from the network, and warnings about the gaps: docs/security.md."""

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

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - a value of http_options.host, not bound here

logger = logging.getLogger(__name__)


def serve_host() -> str:
    """Return the address that Serve's HTTP proxies listen on."""
    client = _get_global_client()
    return str(client.http_config.host or ALL_INTERFACES)


def warn_if_open(settings: AuthSettings, host: str) -> None:
    """Log a warning if the service has no keys and listens on more than the loopback interface."""
    if not settings.keys and not is_loopback(host):
        logger.warning(
            "everybody who can reach this address may use the service: set auth.keys (see docs/keys.md), "
            "or http_options.host to 127.0.0.1",
            extra={"host": host},
        )


def warn_of_ray(node_address: str, *, with_token: bool) -> None:
    """Log a message about Ray's own TCP ports if they listen on more than the loopback interface."""
    if is_loopback(node_address):
        return
    if with_token:
        logger.info(
            "Ray's own ports listen on every interface and require its token: block them with a firewall, or start the "
            "service on this machine alone with `python -m deployments.run` (see docs/security.md)"
        )
    else:
        logger.warning(
            "Ray's own ports (GCS, raylet, workers, replicas) listen on every interface and run the code of everybody "
            "who can reach them: set RAY_AUTH_MODE=token on every node, or start with `python -m deployments.run` "
            "on a single machine (see docs/security.md)"
        )


@dataclass(frozen=True)
class HttpFront:
    """The state of the HTTP servers in front of the service."""

    keeper: ProxyKeeper
    host: str
    settings: ConnectionSettings

    def problems(self) -> tuple[str, ...]:
        """Return a sentence for each reason why this front is not safe to use."""
        failure = self.keeper.failure
        return (failure,) if failure and self.settings.required and not is_loopback(self.host) else ()


def guard_http_servers(settings: Settings) -> HttpFront:
    """Bound every HTTP server of the service, including those that start later, and log what is open to the network."""
    bounds = bounds_of(settings.connections)
    bound_this_process(bounds)
    narrow_token()
    front = HttpFront(ProxyKeeper(ServeProxies(), bounds), serve_host(), settings.connections)
    keep_bounded(front.keeper)
    warn_if_open(settings.auth, front.host)
    warn_of_ray(ray.util.get_node_ip_address(), with_token=is_token_auth_enabled())
    return front


def bind_replica_port(node_address: str) -> None:
    """Bind this replica's TCP port for calls from other deployments to the loopback interface, if the node is on it.

    Serve opens the port on every interface (Ray 2.60, ``ReplicaBase._on_initialized``), used or not, after the
    replica's constructor has run. The port unpickles what it receives, and requires Ray's token only if one is set.
    """
    if is_loopback(node_address):
        add_port = serve_replica.add_port_to_grpc_server
        serve_replica.add_port_to_grpc_server = _LoopbackPortBinder(getattr(add_port, "add_port", add_port))


@dataclass(frozen=True)
class _LoopbackPortBinder:
    """A replacement for Serve's ``add_port_to_grpc_server`` that binds to the loopback interface."""

    add_port: Any

    def __call__(self, server: Any, _address: str) -> Any:
        return self.add_port(server, "127.0.0.1:0")


def is_loopback(host: str) -> bool:
    """Return whether an address is on the loopback interface."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
