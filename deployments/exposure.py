"""Whether strangers can reach the service."""

from __future__ import annotations

import ipaddress
import logging

from ray.serve._private.constants import RAY_SERVE_ENABLE_HA_PROXY
from ray.serve.context import _get_global_client

from pipeline.settings import AuthSettings

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 (not bound: recognised)

logger = logging.getLogger(__name__)


def serve_host() -> str:
    """The address that Serve's HTTP proxies listen on; HAProxy always takes all interfaces."""
    if RAY_SERVE_ENABLE_HA_PROXY:
        return ALL_INTERFACES
    client = _get_global_client()
    return str(client.http_config.host or ALL_INTERFACES)


def warn_if_open(settings: AuthSettings, host: str) -> None:
    """Says so in the log if everybody who reaches a network may use the service."""
    if not settings.keys and not _is_loopback(host):
        logger.warning(
            "everybody who reaches this address may use the service: set auth.keys (see docs/keys.md), "
            "or http_options.host to 127.0.0.1",
            extra={"host": host},
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
