"""Adapters that call other deployments by their Ray Serve handles.

If a replica dies during a call, the handle raises ``RayActorError``. Serve does not retry a call that a replica has
accepted, and should not: the queue decides better where the work goes next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any, cast

from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatusOverview
from typing_extensions import override

from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.summaries.summary import Summary
from pipeline.errors import MurmurationError, ReplicaLost, ServiceStarting
from pipeline.ports import (
    ChunkFailure,
    CrawledMedia,
    Crawler,
    CrawlProgress,
    CrawlRequest,
    EngineInfo,
    SplitDone,
    SplitPart,
    SplitRequest,
    Splitter,
    Summarizer,
    SummaryJob,
    Transcriber,
    Unit,
)


async def _stream(handle: DeploymentHandle, method: str, argument: Any) -> AsyncGenerator[Any, None]:
    """Yield the items of a streamed call; closing the generator cancels the call.

    Raises:
        ReplicaLost: the replica died.
        MurmurationError: the replica raised it.
    """
    response = handle.options(method_name=method, stream=True).remote(argument)
    try:
        async for item in response:
            yield item
    except RayTaskError as error:
        raise _own_error(error) from error
    except (RayActorError, RayServeException) as error:
        raise ReplicaLost("The replica that worked on this ended; the work can be tried again.") from error
    finally:
        response.cancel()


def _own_error(error: RayTaskError) -> Exception:
    """Return the ``MurmurationError`` that the replica raised, or Ray's error if it raised another."""
    cause = error.cause
    return cause if isinstance(cause, MurmurationError) else error


async def _call(handle: DeploymentHandle, method: str, argument: Any) -> Any:
    """Return the result of a call. Raise ``ReplicaLost`` if the replica dies."""
    try:
        return await handle.options(method_name=method).remote(argument)
    except RayTaskError as error:
        raise _own_error(error) from error
    except (RayActorError, RayServeException) as error:
        raise ReplicaLost("The replica that worked on this ended; the work can be tried again.") from error


class SplitterHandle(Splitter):
    """A splitter that calls the Splitter deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    @override
    async def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        async with aclosing(_stream(self._handle, "split", request)) as events:
            async for event in events:
                yield event


class CrawlerHandle(Crawler):
    """A crawler that calls the Crawler deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    @override
    async def crawl(self, request: CrawlRequest) -> AsyncGenerator[CrawlProgress | CrawledMedia, None]:
        async with aclosing(_stream(self._handle, "crawl", request)) as events:
            async for event in events:
                yield event


POLICY_GRACE_S = 8.0
"""Longest time for which a call waits for the scaling policy to start replicas when there are none."""
POLL_S = 0.5

DESCRIPTION_TTL_S = 60.0
"""Age at which a description is requested again, if there has been work since. Without work it is not: a request that
Serve still remembers would start a replica after scaling to zero."""


class TranscriberHandle(Transcriber):
    """A transcriber that calls the WhisperReplica deployment.

    Args:
        handle: the deployment.
        policy_grace_s: longest time for which a call waits for the scaling policy to request replicas.
        poll_s: interval at which it then asks for their number.
        description_ttl_s: age at which a description is requested again.
    """

    def __init__(
        self,
        handle: DeploymentHandle,
        *,
        policy_grace_s: float = POLICY_GRACE_S,
        poll_s: float = POLL_S,
        description_ttl_s: float = DESCRIPTION_TTL_S,
    ) -> None:
        self._handle = handle
        self._policy_grace_s = policy_grace_s
        self._poll_s = poll_s
        self._description_ttl_s = description_ttl_s
        self._at_zero = False
        self._waking = asyncio.Lock()
        self._described: tuple[float, EngineInfo] | None = None
        self._used = False

    @override
    async def transcribe(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkResult | ChunkFailure], None]:
        self._used = True
        if self._at_zero:
            await self._wait_for_policy()
        async with aclosing(_stream(self._handle, "transcribe", unit)) as batches:
            async for results in batches:
                yield results

    async def wake(self) -> None:
        """Start a replica if there is none, by a call for its description, so that the engine is known.

        Otherwise a Dispatcher that starts while there are no replicas would not be ready before there is work.
        """
        with suppress(ServiceStarting):
            await self.describe()

    async def _wait_for_policy(self) -> None:
        """Wait up to ``policy_grace_s`` for the scaling policy to request replicas.

        A call to a deployment without replicas makes Serve start exactly one, and Serve does not call its policy again
        before that one runs. This takes minutes if a node must be added first; the policy knows how many are needed.
        """
        async with self._waking:
            deadline = time.monotonic() + self._policy_grace_s
            while self._at_zero and time.monotonic() < deadline:
                await asyncio.sleep(self._poll_s)
                self._at_zero = not any((await self._states()).values())
            self._at_zero = False

    @override
    async def replica_count(self) -> int:
        states = await self._states()
        self._at_zero = not any(states.values())
        return states.get("RUNNING", 0)

    async def _states(self) -> dict[str, int]:
        """Return the number of replicas in each of Serve's states."""
        application = await asyncio.to_thread(_application, self._handle.app_name)
        deployment = application.deployments.get(self._handle.deployment_name)
        return dict(deployment.replica_states) if deployment else {}

    @override
    async def describe(self) -> EngineInfo:
        if self._described and not (self._used and time.monotonic() - self._described[0] > self._description_ttl_s):
            return self._described[1]
        try:
            info = cast("EngineInfo", await self._handle.describe.remote())
        except (RayError, RayServeException) as error:
            raise ServiceStarting("No replica has answered yet; try again in a moment.") from error
        self._described, self._used = (time.monotonic(), info), False
        return info


class SummarizerHandle(Summarizer):
    """A summarizer that calls the Summarizer deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    @override
    async def summarize(self, job: SummaryJob) -> Summary:
        result = await _call(self._handle, "summarize", job)
        if isinstance(result, MurmurationError):
            raise result
        return cast("Summary", result)


def _application(name: str) -> ApplicationStatusOverview:
    try:
        return serve.status().applications[name]
    except (KeyError, RayError, RayServeException) as error:
        raise ServiceStarting("The application has not started yet; try again in a moment.") from error
