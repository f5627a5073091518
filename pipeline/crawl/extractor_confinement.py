"""Confines a process that reads pages: by the kernel, and by an audit hook where the kernel can't limit connections."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Any
from urllib.parse import urlsplit

from pipeline.confinement.profiles import ExtractorRights, confine_extractor, filter_extractor
from pipeline.crawl.extractor_messages import CONFINED_MESSAGE, ExtractRequest

_PROGRAMS = frozenset({"os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"})
_DATAGRAMS = frozenset({"socket.sendto", "socket.sendmsg"})


def confine_process(request: ExtractRequest, session: socket.socket, own_network: bool) -> None:
    """Confine the process for the rest of its life, and send the socket on which the proxy accepts its connections.

    The kernel enforces the timeout, so that it also ends a regular expression that never finishes.
    """
    os.chdir(request.scratch)
    os.environ |= {"HOME": request.scratch, "TMPDIR": request.scratch}
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, request.timeout_s)
    proxy = urlsplit(request.proxy)
    rights = ExtractorRights(
        scratch=request.scratch,
        readable=tuple(filter(None, (os.environ.get("SSL_CERT_FILE"),))),
        proxy_port=int(proxy.port or 0),
        memory_bytes=request.max_process_bytes,
        file_bytes=request.max_process_bytes,
        runtime=request.js_runtime,
        own_network=own_network,
    )
    listener = confine_extractor(rights)
    socket.send_fds(session, [CONFINED_MESSAGE], [listener.fileno()] if listener else [])
    if listener is not None:
        listener.close()
    if not request.targets:  # the probe makes system calls directly, which the hook does not see
        sys.addaudithook(AuditHook((str(proxy.hostname), rights.proxy_port), request.js_runtime))
    filter_extractor(rights)


class AuditHook:
    """An audit hook that refuses connections except to the proxy, and programs except the JavaScript runtime."""

    def __init__(self, proxy: tuple[str, int], runtime: str | None) -> None:
        self._proxy = proxy
        self._runtime = runtime

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raise ``PermissionError`` for an event that is not allowed (``sys.addaudithook``)."""
        if event == "socket.connect":
            self._check_address(arguments[1])
        elif event == "socket.getaddrinfo":
            self._check_name(arguments[0])
        elif event in _DATAGRAMS:
            raise PermissionError("connections are allowed to the proxy only")
        elif event in _PROGRAMS or (event == "subprocess.Popen" and arguments[0] != self._runtime):
            raise PermissionError("programs other than the JavaScript runtime are not allowed")

    def _check_name(self, name: object) -> None:
        if name not in (self._proxy[0], self._proxy[0].encode()):
            raise PermissionError("host names are resolved by the proxy only")

    def _check_address(self, address: object) -> None:
        if not isinstance(address, tuple) or address[:2] != self._proxy:
            raise PermissionError("connections are allowed to the proxy only")
