"""Settings of the section ``network``."""

from __future__ import annotations

from pathlib import Path

from pipeline.settings.section import Section


class NetworkSettings(Section):
    """Requests that the service makes on behalf of its clients."""

    allow_private_hosts: tuple[str, ...] = ()
    """Host names, addresses or networks (`10.0.0.0/8`) that may be reached although they are not public."""
    proxy: str | None = None
    """The operator's proxy for outbound HTTP."""
    proxy_resolves: bool = False
    """Let the operator's proxy resolve names: for networks whose own name service does not resolve public names. The
    proxy must then refuse names of private addresses itself."""
    ca_file: Path | None = None
    """PEM file of the authorities that TLS trusts instead of the usual ones: for a proxy that inspects TLS."""
