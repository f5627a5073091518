"""Settings of the section ``connections``."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings.section import Section


class ConnectionSettings(Section):
    """Bounds of Serve's HTTP servers on connections and request heads, before the application sees a request."""

    max_head_bytes: int = Field(default=64 * 1024, ge=4096, le=1024 * 1024)
    """Most bytes of a request's line and headers together; more are answered with 431."""
    max_url_bytes: int = Field(default=44 * 1024, ge=1024)
    """Most bytes of a request's URL; more are answered with 414. HAProxy bounds it by `max_head_bytes` alone. The
    default has room for a prompt of 4,000 Chinese characters, escaped."""
    max_headers: int = Field(default=100, ge=16)
    """Most headers of a request; more are answered with 431. HAProxy accepts 101, whatever this setting says."""
    head_timeout_s: float = Field(default=10.0, gt=0)
    """Time for receiving the headers of a request: of the first one from the start of the connection."""
    max_connections: int = Field(default=4096, ge=16)
    """Open connections of one HTTP proxy. Beyond them, a new connection closes the one that has waited longest for a
    request. At most the number of files that the process may open. HAProxy closes none for another, and accepts four
    times as many."""
    max_pipelined: int = Field(default=16, ge=1)
    """Requests that one connection may send ahead of their answers."""
    required: bool = True
    """Report the service as not ready if a proxy that a network reaches can't be bounded. `false`: a server in front of
    the service bounds requests."""
