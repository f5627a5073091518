"""Puts the bounds into Serve's HTTP servers: its Python proxies, HAProxy, and the replicas behind HAProxy.

Serve has no option that bounds request heads (Ray 2.60), nor one that says how much of an answer has gone, which
``api.acknowledge`` does. Three ways lead into the processes that listen:

- ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=deployments.front.proxies:bounded`` in a node's environment: Serve calls
  ``bounded`` in each of these processes before it listens. The container images and ``configs/production.env`` set it.
- ``ProxyKeeper`` reaches the proxies that run, by Ray's ``__ray_call__``, with the bounds of the settings; so they are
  bounded where nobody set the variable (``serve run serve_config.yaml``), and again after a proxy was replaced.
- ``bound_this_process``: in HAProxy mode each Ingress replica listens on a port of its own, as soon as it is made.
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

from deployments.api.middleware.acknowledgements import acknowledgement_middleware, with_acknowledgements
from deployments.cluster.nodes import alive_nodes
from deployments.front.bounds import ConnectionBounds
from deployments.front.protocol import RESERVED_FILES, BoundedProtocol, bounded_protocol, file_limit
from deployments.front.turns import FairStartMiddleware, fair_start_middleware
from pipeline.settings import ConnectionSettings

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S = 2.0
"""How soon a proxy that was replaced is bounded again."""
PROXY_TIMEOUT_S = 10.0
RELOAD_ATTRIBUTE = "murmuration_reload"
"""Attribute of HAProxy's manager: the reload that gave it its bounds."""
FALLBACK_PROXY_PREFIX = "fallback-"
"""In the name of the Python proxy behind HAProxy, on the head node."""
HAPROXY_CONNECTIONS = 4
"""HAProxy's connections, as a multiple of a Python proxy's: it closes none that waits to make room for another, so that
whoever would fill it has to hold many more."""
HAPROXY_FILES = 3
"""Files that a connection may take in HAProxy: both of its ends, and a share of the pipes that splice them."""
CLIENT_TIMEOUT_S = 60
"""How long HAProxy waits for more of a request's body, or for somebody to read an answer; not for the answer itself."""


def bounds_of(settings: ConnectionSettings) -> ConnectionBounds:
    """The bounds that the settings name."""
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
    """Serve's proxy callback: bounds the HTTP server that this process is about to start; returns its middleware.

    Bounds that the process was given before, those of the settings, stay.
    """
    if not hasattr(uvicorn.config.HTTP_PROTOCOLS["auto"], "bounds"):
        bound_this_process(ConnectionBounds())
    return [*fair_start_middleware(), *acknowledgement_middleware()]


def bound_this_process(bounds: ConnectionBounds) -> None:
    """Gives the HTTP servers that this process starts from now on the bounded protocol and what ``bounded`` returns.

    Serve asks its own copy of the variable, as it was when Ray was imported.
    """
    uvicorn.config.HTTP_PROTOCOLS["auto"] = bounded_protocol(bounds)  # type: ignore[assignment]
    if not http_util.RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH:
        http_util.RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH = f"{bounded.__module__}:{bounded.__name__}"


def bound_proxy(actor: Any, bounds: ConnectionBounds) -> bool:
    """Runs in a proxy's process: bounds what it listens with; ``False`` while that goes on, or it is only starting.

    Raises:
        AttributeError: the proxy is built otherwise than Ray's 2.60.
        RuntimeError: HAProxy did not take its bounds; it is tried again.
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
    """Closes a connection from before the bounds, unless it is being answered."""
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
    """The bounds as fields of Ray's ``HAProxyConfig``; HAProxy's own bound on headers is 101 (``tune.http.maxhdr``)."""
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
        """Those that run, by an id that is never used again."""

    def bound(self, proxy: Any, bounds: ConnectionBounds) -> bool:
        """Bounds one; ``False`` while it is only starting.

        Raises:
            RayError: it can't be reached, or can't be bounded.
        """


class ServeProxies:
    """Serve's proxies, by the names it gives their actors."""

    def running(self) -> Mapping[str, Any]:
        """One a node at most, and one behind HAProxy, by the actor's id."""
        return {actor._actor_id.hex(): actor for actor in self._actors()}  # noqa: SLF001 - a restarted one has another

    def bound(self, proxy: Any, bounds: ConnectionBounds) -> bool:
        """Bounds one in its own process."""
        done: bool = ray.get(proxy.__ray_call__.remote(bound_proxy, bounds), timeout=PROXY_TIMEOUT_S)
        return done

    def _actors(self) -> Iterator[Any]:
        names = [f"{kind}{node['NodeID']}" for node in alive_nodes() for kind in ("", FALLBACK_PROXY_PREFIX)]
        for name in names:
            with suppress(ValueError):  # no such proxy on this node
                yield ray.get_actor(format_actor_name(SERVE_PROXY_NAME, name), SERVE_NAMESPACE)


@dataclass
class ProxyKeeper:
    """Bounds every proxy there is, and those that come later.

    Attributes:
        failure: why a proxy could not be bounded, in a sentence; ``None`` where all is well.
    """

    proxies: Proxies
    bounds: ConnectionBounds
    failure: str | None = None
    _done: set[str] = field(default_factory=set)

    def look(self) -> None:
        """Bounds the proxies that are not bounded yet; what can't be done now is tried again."""
        running = self.proxies.running()
        self._done.intersection_update(running)
        failures = [self._bound(name, proxy) for name, proxy in running.items() if name not in self._done]
        self.failure = next((failure for failure in failures if failure), None)

    def _bound(self, name: str, proxy: Any) -> str | None:
        try:
            if self.proxies.bound(proxy, self.bounds):
                self._done.add(name)
        except (RayActorError, GetTimeoutError) as error:
            logger.info("a proxy can't be reached yet: %s", type(error).__name__)
        except RayError as error:
            if self.failure is None:
                logger.error("an HTTP proxy can't be bounded; see docs/security.md", exc_info=error)
            return "an HTTP proxy that takes request heads of any size: this version of Ray can't be bounded"
        return None


def keep_bounded(keeper: ProxyKeeper, *, every_s: float = CHECK_INTERVAL_S) -> Callable[[], None]:
    """Looks again and again, in a thread, until the keeper is gone; returns what stops it."""
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
            keeper.look()
        except Exception:
            logger.exception("the HTTP proxies can't be looked at; trying again")
        del keeper
        stop.wait(every_s)
