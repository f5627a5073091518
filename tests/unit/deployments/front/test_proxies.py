from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn.config
from ray._common.utils import import_attr
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve._private import http_util
from ray.serve.config import HTTPOptions

from deployments.api.middleware.acknowledgements import AcknowledgementMiddleware
from deployments.front.bounds import ConnectionBounds
from deployments.front.protocol import BoundedProtocol
from deployments.front.proxies import (
    ProxyKeeper,
    bound_proxy,
    bound_this_process,
    bounded,
    bounds_of,
    haproxy_options,
    keep_bounded,
)
from deployments.front.turns import FairStartMiddleware
from pipeline.settings import ConnectionSettings
from tests.unit.deployments.front.fake_proxies import FakeProxies

BOUNDS = ConnectionBounds(max_head_bytes=8192)


class OldConnection:
    """A connection from before the bounds."""

    def __init__(self, cycle: Any) -> None:
        self.cycle, self.closed = cycle, False
        self.loop, self.transport = asyncio.get_running_loop(), self

    def close(self) -> None:
        self.closed = True


def connection_with(response_complete: bool | None) -> OldConnection:
    """Return a connection that waits for its first request, or whose response is complete or not."""
    cycle = None if response_complete is None else SimpleNamespace(response_complete=response_complete)
    return OldConnection(cycle)


def task_error() -> RayTaskError:
    return RayTaskError("bound_proxy", "Traceback", AttributeError("_start_http_server_task"))


def test_the_bounds_are_the_settings() -> None:
    assert bounds_of(ConnectionSettings()) == ConnectionBounds()
    assert bounds_of(ConnectionSettings(max_headers=33)).max_headers == 33


def test_each_proxy_is_bounded_once() -> None:
    proxies = FakeProxies({"a": True, "b": True})
    keeper = ProxyKeeper(proxies, BOUNDS)
    keeper.bound_new()
    keeper.bound_new()
    assert (proxies.calls, keeper.failure) == (["a", "b"], None)


def test_a_proxy_that_is_starting_is_bounded_later() -> None:
    proxies = FakeProxies({"a": False})
    keeper = ProxyKeeper(proxies, BOUNDS)
    keeper.bound_new()
    proxies.answers["a"] = True
    keeper.bound_new()
    keeper.bound_new()
    assert proxies.calls == ["a", "a"]


def test_a_proxy_that_was_replaced_is_bounded() -> None:
    proxies = FakeProxies({"a": True})
    keeper = ProxyKeeper(proxies, BOUNDS)
    keeper.bound_new()
    proxies.answers = {"b": True}
    keeper.bound_new()
    assert proxies.calls == ["a", "b"]


def test_a_proxy_that_can_not_be_bounded_is_named_until_it_can() -> None:
    proxies = FakeProxies({"a": task_error()})
    keeper = ProxyKeeper(proxies, BOUNDS)
    keeper.bound_new()
    assert keeper.failure is not None
    proxies.answers["a"] = True
    keeper.bound_new()
    assert keeper.failure is None


def test_a_proxy_that_dies_is_no_failure() -> None:
    keeper = ProxyKeeper(FakeProxies({"a": ActorDiedError()}), BOUNDS)
    keeper.bound_new()
    assert keeper.failure is None


def test_the_keeper_looks_until_it_is_gone() -> None:
    proxies = FakeProxies({"a": True})
    keeper = ProxyKeeper(proxies, BOUNDS)
    keep_bounded(keeper, every_s=0.001)
    assert proxies.looked.wait(5)
    threads = [thread for thread in threading.enumerate() if "_check_periodically" in thread.name]
    del keeper
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)


@pytest.fixture
def _own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore what bounding changes in a process after the test."""
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    monkeypatch.setattr(http_util, "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "")


@pytest.mark.usefixtures("_own_process")
def test_serves_callback_bounds_the_process_and_has_answers_acknowledged() -> None:
    assert [middleware.cls for middleware in bounded()] == [FairStartMiddleware, AcknowledgementMiddleware]
    config = uvicorn.config.Config(lambda: None, factory=True, log_config=None)
    config.load()
    assert issubclass(config.http_protocol_class, BoundedProtocol)
    assert config.http_protocol_class.bounds == ConnectionBounds()


@pytest.mark.usefixtures("_own_process")
def test_a_process_that_was_given_bounds_keeps_them_and_calls_back() -> None:
    bound_this_process(BOUNDS)
    assert import_attr(http_util.RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH) is bounded
    options = http_util.configure_http_middlewares(HTTPOptions(middlewares=[]))
    assert [layer.cls for layer in options.middlewares] == [FairStartMiddleware, AcknowledgementMiddleware]
    assert uvicorn.config.HTTP_PROTOCOLS["auto"].bounds == BOUNDS  # type: ignore[attr-defined]


@pytest.mark.usefixtures("_own_process")
def test_a_callback_that_the_operator_names_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_util, "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "operators.own:callback")
    bound_this_process(BOUNDS)
    assert http_util.RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH == "operators.own:callback"


async def test_a_python_proxy_gets_the_protocol_once_it_listens() -> None:
    idle, answered, busy = (connection_with(cycle) for cycle in (None, True, False))
    server = SimpleNamespace(
        started=False,
        config=SimpleNamespace(http_protocol_class=object, loaded_app=object()),
        server_state=SimpleNamespace(connections={idle, answered, busy}),
    )
    started: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    actor = SimpleNamespace(_start_http_server_task=started)
    assert not bound_proxy(actor, BOUNDS)
    started.set_result((None, server))
    assert not bound_proxy(actor, BOUNDS)
    server.started = True
    assert bound_proxy(actor, BOUNDS)
    given: Any = server.config.http_protocol_class
    assert given.bounds == BOUNDS
    assert isinstance(server.config.loaded_app, FairStartMiddleware)
    assert bound_proxy(actor, BOUNDS)
    assert server.config.http_protocol_class is given
    await asyncio.sleep(0)
    assert [connection.closed for connection in (idle, answered, busy)] == [True, True, False]


def test_a_proxy_of_another_ray_is_an_error() -> None:
    with pytest.raises(AttributeError):
        bound_proxy(SimpleNamespace(), BOUNDS)


@dataclass
class FakeHaproxy:
    """HAProxy's manager, which records the configuration of each reload and fails a given number of times."""

    event_loop: asyncio.AbstractEventLoop
    failures: int = 0
    loaded: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cfg = SimpleNamespace(**dict.fromkeys(haproxy_options(BOUNDS, 1000)))
        self._haproxy, self._reload_lock = self, asyncio.Lock()
        self._haproxy_start_task: asyncio.Future[Any] = self.event_loop.create_future()

    async def reload(self) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("Failed to update and reload HAProxy")
        self.loaded.append(dict(vars(self.cfg)))


@pytest.mark.parametrize(("files", "connections"), [(1_000_000, 16_384), (20_000, 6581), (100, 1)])
def test_haproxy_has_many_connections_but_no_more_than_files(files: int, connections: int) -> None:
    assert haproxy_options(ConnectionBounds(), files)["maxconn"] == connections


async def test_haproxy_is_loaded_anew_with_its_bounds() -> None:
    manager = FakeHaproxy(asyncio.get_running_loop())
    assert not bound_proxy(manager, BOUNDS)
    assert not manager.loaded
    manager._haproxy_start_task.set_result(None)
    await _until_bound(manager)
    assert [load["bufsize"] for load in manager.loaded] == [8192]
    assert manager.loaded[0]["timeout_http_request_s"] == 10
    await _until_bound(manager)
    assert len(manager.loaded) == 1


async def test_a_reload_that_failed_is_said_and_tried_again() -> None:
    manager = FakeHaproxy(asyncio.get_running_loop(), failures=1)
    manager._haproxy_start_task.set_result(None)
    with pytest.raises(RuntimeError):
        await _until_bound(manager)
    await _until_bound(manager)
    assert len(manager.loaded) == 1


async def _until_bound(manager: FakeHaproxy) -> None:
    while not bound_proxy(manager, BOUNDS):
        await asyncio.sleep(0)
