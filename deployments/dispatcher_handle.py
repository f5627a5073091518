"""The adapter by which an Ingress replica calls the Dispatcher, and the state that it reads there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from typing_extensions import override

from pipeline.ports import EngineInfo, TaskSignals

logger = logging.getLogger(__name__)

UNREACHABLE = (RayError, RayServeException)
"""Errors that a handle raises if no replica answers."""


@dataclass(frozen=True, slots=True)
class DispatcherState:
    """The service's state as the Dispatcher knows it.

    Attributes:
        database_ready: the database answers.
        engine: the engine that the replicas run, once one has loaded its model.
        problems: reasons why this configuration can't serve this cluster as it is now, a sentence each.
        gpu_node_missing: no engine is known yet because no node has a GPU.
        stopped: reasons why no task is in progress, a sentence each.
        failure_messages: other failures in the background, a sentence each.
    """

    database_ready: bool
    engine: EngineInfo | None
    problems: tuple[str, ...] = ()
    gpu_node_missing: bool = False
    stopped: tuple[str, ...] = ()
    failure_messages: tuple[str, ...] = ()


class DispatcherHandle(TaskSignals):
    """Signals to the Dispatcher deployment.

    Args:
        handle: Ray Serve's handle of the Dispatcher.
        spawn: starts a coroutine that nobody waits for.
    """

    def __init__(self, handle: DeploymentHandle, spawn: Callable[[Coroutine[Any, Any, Any]], None]) -> None:
        self._handle = handle
        self._spawn = spawn
        self._wake_wanted = False
        self._waking = False

    @override
    async def wake(self) -> None:
        """Signal that tasks can be claimed. One call is under way at a time; another follows for all that came then."""
        self._wake_wanted = True
        if not self._waking:
            self._waking = True
            self._spawn(self._send_wakes())

    async def _send_wakes(self) -> None:
        try:
            while self._wake_wanted:
                self._wake_wanted = False
                await self._signal("wake")
        finally:
            self._waking = False

    @override
    async def watch(self, task_id: int, seen: int, timeout_s: float) -> int:
        number = await self._signal("watch", task_id, seen, timeout_s)
        return seen if number is None else cast("int", number)

    @override
    async def watch_end(self, task_id: int, timeout_s: float) -> None:
        await self._signal("watch_end", task_id, timeout_s)

    @override
    async def cancel(self, task_id: int) -> None:
        await self._signal("cancel", task_id)

    async def state(self) -> DispatcherState | None:
        """Return the Dispatcher's state; ``None`` if it can't be reached."""
        try:
            return cast("DispatcherState", await self._handle.state.remote())
        except UNREACHABLE:
            return None

    async def _signal(self, method: str, *arguments: Any) -> object:
        """Return the result of a call; ``None`` if the Dispatcher can't be reached."""
        try:
            return await self._handle.options(method_name=method).remote(*arguments)
        except UNREACHABLE as error:
            logger.warning("could not reach the Dispatcher: %s", type(error).__name__, extra={"method": method})
            return None
