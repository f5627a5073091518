"""Installation of the bounds in Serve's HTTP servers: its Python proxies, HAProxy, and the replicas behind HAProxy.

Serve has no option that bounds request heads (Ray 2.60), nor one that reports how much of a response has been sent,
which ``api.middleware.acknowledgements`` does. There are three ways into the processes that listen:

- ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=deployments.front.proxies:bounded`` in a node's environment: Serve calls
  ``bounded`` in each of these processes before it listens. The container images and ``configs/production.env`` set it.
- ``ProxyKeeper`` calls the running proxies by Ray's ``__ray_call__``, with the bounds of the settings. So they are
  bounded if the variable is not set (``serve run serve_config.yaml``), and again after a proxy was replaced.
- ``bound_this_process``: in HAProxy mode each Ingress replica listens on a TCP port of its own as soon as it starts.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
import uvicorn.config
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.serve._private import http_util
from ray.serve._private.constants import SERVE_NAMESPACE, SERVE_PROXY_NAME
from ray.serve._private.utils import format_actor_name
from typing_extensions import override

from deployments.api.middleware.acknowledgements import acknowledgement_middleware, with_acknowledgements
from deployments.cluster.nodes import alive_nodes
from deployments.front.bounds import ConnectionBounds
from deployments.front.protocol import RESERVED_FILES, BoundedProtocol, bounded_protocol, file_limit
from deployments.front.turns import FairStartMiddleware, fair_start_middleware
from pipeline.settings import ConnectionSettings

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S = 2.0
"""Interval between checks, and so the longest time before a replaced proxy is bounded."""
PROXY_TIMEOUT_S = 10.0
RELOAD_ATTRIBUTE = "murmuration_reload"
"""Attribute of HAProxy's manager that holds the reload with the bounds."""
FALLBACK_PROXY_PREFIX = "fallback-"
"""Prefix in the name of the Python proxy behind HAProxy, on the head node."""
HAPROXY_CONNECTIONS = 4
"""HAProxy's connections as a multiple of a Python proxy's. HAProxy closes no idle connection to admit another, so a
higher number makes it harder to fill."""
HAPROXY_FILES = 3
"""Files that a connection may need in HAProxy: both of its ends, and a share of the pipes that splice them."""
CLIENT_TIMEOUT_S = 60
"""Longest time that HAProxy waits for more of a request's body, or for the client to read a response; the application
may take longer to respond."""


def bounds_of(settings: ConnectionSettings) -> ConnectionBounds:
    """Return the bounds that the settings name."""
    return ConnectionBounds(
        max_head_bytes=settings.max_head_bytes,
        max_url_bytes=settings.max_url_bytes,
        max_headers=settings.max_headers,
        head_timeout_s=settings.head_timeout_s,
        max_connections=settings.max_connections,
        max_pipelined=settings.max_pipelined,
    )


# in the processes that listen


def bounded() -> list[Any]:
    """Bound the HTTP server that this process is about to start, and return its middleware: Serve's proxy callback.

    If the process has bounds already, those of the settings, they stay.
    """
    if not hasattr(uvicorn.config.HTTP_PROTOCOLS["auto"], "bounds"):
        bound_this_process(ConnectionBounds())
    return [*fair_start_middleware(), *acknowledgement_middleware()]


def bound_this_process(bounds: ConnectionBounds) -> None:
    """Have the HTTP servers that this process starts from now on use the bounded protocol and ``bounded``'s middleware.

    Serve reads its own copy of the environment variable, made when Ray was imported, so this sets the copy.
    """
    uvicorn.config.HTTP_PROTOCOLS["auto"] = bounded_protocol(bounds)  # type: ignore[assignment]
    if not http_util.RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH:
        http_util.RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH = f"{bounded.__module__}:{bounded.__name__}"


def bound_proxy(actor: Any, bounds: ConnectionBounds) -> bool:
    """Bound the HTTP server of a proxy; Ray runs this in the proxy's process. Return ``False`` until that is done.

    Raises:
        AttributeError: the proxy is not built like that of Ray 2.60.
        RuntimeError: HAProxy did not load its bounds; this call has started another try.
    """
    return _bound_haproxy(actor, bounds) if hasattr(actor, "_haproxy") else _bound_uvicorn(actor, bounds)


def _bound_uvicorn(actor: Any, bounds: ConnectionBounds) -> bool:
    if not actor._start_http_server_task.done():  # noqa: SLF001 - no public way to the server
        return False
    _, server = actor._start_http_server_task.result()  # noqa: SLF001
    if not server.started:
        return False
    if getattr(server.config.http_protocol_class, "bounds", None) != bounds:
        server.config.http_protocol_class = bounded_protocol(bounds)
        server.config.loaded_app = _with_layers(server.config.loaded_app)
        for connection in list(server.server_state.connections):
            connection.loop.call_soon_threadsafe(_close_unbounded, connection)
    return True


def _with_layers(app: Any) -> Any:
    """Return the application inside what ``bounded`` returns, once."""
    return app if isinstance(app, FairStartMiddleware) else FairStartMiddleware(with_acknowledgements(app))


def _close_unbounded(connection: Any) -> None:
    """Close a connection from before the bounds, unless a response is in progress."""
    cycle = getattr(connection, "cycle", None)
    if not isinstance(connection, BoundedProtocol) and (cycle is None or cycle.response_complete):
        connection.transport.close()


def _bound_haproxy(manager: Any, bounds: ConnectionBounds) -> bool:
    if not manager._haproxy_start_task.done():  # noqa: SLF001 - no public way to HAProxy's configuration
        return False
    wanted, config = haproxy_options(bounds, file_limit()), manager._haproxy.cfg  # noqa: SLF001
    last: Future[None] | None = vars(manager).get(RELOAD_ATTRIBUTE)
    failure = last.exception() if last is not None and last.done() else None
    if last is None or failure or any(getattr(config, name) != value for name, value in wanted.items()):
        vars(config).update(wanted)
        vars(manager)[RELOAD_ATTRIBUTE] = asyncio.run_coroutine_threadsafe(_reload(manager), manager.event_loop)
        if failure:
            raise failure
        return False
    return last.done()


async def _reload(manager: Any) -> None:
    async with manager._reload_lock:  # noqa: SLF001
        await manager._haproxy.reload()  # noqa: SLF001


def haproxy_options(bounds: ConnectionBounds, files: int) -> Mapping[str, int]:
    """Return the bounds as fields of Ray's ``HAProxyConfig``; HAProxy accepts 101 headers (``tune.http.maxhdr``)."""
    return {
        "bufsize": bounds.max_head_bytes,
        "timeout_http_request_s": max(1, round(bounds.head_timeout_s)),
        "timeout_client_s": CLIENT_TIMEOUT_S,
        "maxconn": max(1, min(HAPROXY_CONNECTIONS * bounds.max_connections, (files - RESERVED_FILES) // HAPROXY_FILES)),
    }


# in a replica of the Ingress


class Proxies(Protocol):
    """The HTTP proxies of the cluster."""

    def running(self) -> Mapping[str, Any]:
        """Return the running proxies by an id that is never reused."""

    def bound(self, proxy: Any, bounds: ConnectionBounds) -> bool:
        """Bound a proxy. Return ``False`` while it is starting.

        Raises:
            RayError: the proxy can't be reached or can't be bounded.
        """


class ServeProxies(Proxies):
    """Serve's proxies, found by the names of their actors."""

    @override
    def running(self) -> Mapping[str, Any]:
        """Return at most one proxy a node, and the one behind HAProxy, by the actor's id."""
        return {actor._actor_id.hex(): actor for actor in self._actors()}  # noqa: SLF001 - a restarted actor has another id

    @override
    def bound(self, proxy: Any, bounds: ConnectionBounds) -> bool:
        """Bound a proxy in its own process."""
        done: bool = ray.get(proxy.__ray_call__.remote(bound_proxy, bounds), timeout=PROXY_TIMEOUT_S)
        return done

    def _actors(self) -> Iterator[Any]:
        names = [f"{kind}{node['NodeID']}" for node in alive_nodes() for kind in ("", FALLBACK_PROXY_PREFIX)]
        for name in names:
            with suppress(ValueError):  # no such proxy on this node
                yield ray.get_actor(format_actor_name(SERVE_PROXY_NAME, name), SERVE_NAMESPACE)


@dataclass
class ProxyKeeper:
    """The bounding of all proxies, including those that start later.

    Attributes:
        failure: a sentence about why a proxy could not be bounded; ``None`` without a failure.
    """

    proxies: Proxies
    bounds: ConnectionBounds
    failure: str | None = None
    _done: set[str] = field(default_factory=set)

    def bound_new(self) -> None:
        """Bound the proxies that are not bounded yet; the next call retries those that failed."""
        running = self.proxies.running()
        self._done.intersection_update(running)
        failures = [self._bound(name, proxy) for name, proxy in running.items() if name not in self._done]
        self.failure = next((failure for failure in failures if failure), None)

    def _bound(self, name: str, proxy: Any) -> str | None:
        try:
            if self.proxies.bound(proxy, self.bounds):
                self._done.add(name)
        except (RayActorError, GetTimeoutError) as error:
            logger.info("an HTTP proxy can't be reached yet: %s", type(error).__name__)
        except RayError as error:
            if self.failure is None:
                logger.error("an HTTP proxy can't be bounded; see docs/security.md", exc_info=error)
            return "an HTTP proxy accepts request heads of any size: this version of Ray can't be bounded"
        return None


def keep_bounded(keeper: ProxyKeeper, *, every_s: float = CHECK_INTERVAL_S) -> Callable[[], None]:
    """Bound new proxies periodically, in a thread. Return a function that stops it.

    It also stops once the keeper is garbage collected.
    """
    stop = threading.Event()
    weakref.finalize(keeper, stop.set)
    threading.Thread(target=_check_periodically, args=(weakref.ref(keeper), stop, every_s), daemon=True).start()
    return stop.set


def _check_periodically(reference: weakref.ref[ProxyKeeper], stop: threading.Event, every_s: float) -> None:
    while not stop.is_set():
        keeper = reference()
        if keeper is None:
            return
        try:
            keeper.bound_new()
        except Exception:
            logger.exception("the HTTP proxies can't be checked; trying again")
        del keeper
        stop.wait(every_s)
