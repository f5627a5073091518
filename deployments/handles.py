"""Ports satisfied by handles to other deployments: what is one method call in a test is a hop through Ray here.

A replica that dies with a call in hand shows as ``RayActorError``; Serve does not retry what a replica has accepted,
and should not: the queue knows better where the work goes next.
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

from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.summaries.summary import Summary
from pipeline.errors import MurmurationError, ReplicaLost, ServiceStarting
from pipeline.ports import (
    ChunkFailure,
    CrawledMedia,
    CrawlProgress,
    CrawlRequest,
    EngineInfo,
    SplitDone,
    SplitPart,
    SplitRequest,
    SummaryJob,
    Unit,
)


async def _stream(handle: DeploymentHandle, method: str, argument: Any) -> AsyncGenerator[Any, None]:
    """A streamed call whose replica may die, and which is cancelled there when it is closed here."""
    response = handle.options(method_name=method, stream=True).remote(argument)
    try:
        async for item in response:
            yield item
    except RayTaskError as error:
        raise _own_error(error) from error
    except (RayActorError, RayServeException) as error:
        raise ReplicaLost("A replica died while it worked on this.") from error
    finally:
        response.cancel()


def _own_error(error: RayTaskError) -> Exception:
    """Ours, if the far side raised one of ours; else the far side's own failure."""
    cause = error.cause
    return cause if isinstance(cause, MurmurationError) else error


async def _call(handle: DeploymentHandle, method: str, argument: Any) -> Any:
    """A call whose replica may die."""
    try:
        return await handle.options(method_name=method).remote(argument)
    except RayTaskError as error:
        raise _own_error(error) from error
    except (RayActorError, RayServeException) as error:
        raise ReplicaLost("A replica died while it worked on this.") from error


class SplitterHandle:
    """``ports.Splitter`` over the Splitter deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        """See ``ports.Splitter.split``."""
        async with aclosing(_stream(self._handle, "split", request)) as events:
            async for event in events:
                yield event


class CrawlerHandle:
    """``ports.Crawler`` over the Crawler deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def crawl(self, request: CrawlRequest) -> AsyncGenerator[CrawlProgress | CrawledMedia, None]:
        """See ``ports.Crawler.crawl``."""
        async with aclosing(_stream(self._handle, "crawl", request)) as events:
            async for event in events:
                yield event


POLICY_GRACE_S = 8.0
"""How long a call leaves it to the scaling policy to wake a fleet that is scaled to zero."""
POLL_S = 0.5

DESCRIPTION_TTL_S = 60.0
"""How long a description counts while there is work. An idle fleet is not asked: a question is a request, and one
that Serve still remembers wakes a fleet that was scaled to zero since."""


class TranscriberHandle:
    """``ports.Transcriber`` over the WhisperReplica deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._at_zero = False
        self._waking = asyncio.Lock()
        self._described: tuple[float, EngineInfo] | None = None
        self._used = False

    async def transcribe(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkResult | ChunkFailure], None]:
        """See ``ports.Transcriber.transcribe``."""
        self._used = True
        if self._at_zero:
            await self._wait_for_policy()
        async for results in _stream(self._handle, "transcribe", unit):
            yield results

    async def wake(self) -> None:
        """Has a replica started if there is none, as a call for it does, so that it is known what runs.

        Else a Dispatcher that is new while the fleet is scaled to zero would not be ready before there is work.
        """
        with suppress(ServiceStarting):
            await self.describe()

    async def _wait_for_policy(self) -> None:
        """Waits a little for the scaling policy to ask for replicas.

        A call to a deployment without replicas makes Serve start exactly one and not ask its policy again before
        that one runs, which takes minutes where a node must be brought first; the policy knows how many are needed.
        """
        async with self._waking:
            deadline = time.monotonic() + POLICY_GRACE_S
            while self._at_zero and time.monotonic() < deadline:
                await asyncio.sleep(POLL_S)
                self._at_zero = not any((await self._states()).values())
            self._at_zero = False

    async def replica_count(self) -> int:
        """See ``ports.Transcriber.replica_count``."""
        states = await self._states()
        self._at_zero = not any(states.values())
        return states.get("RUNNING", 0)

    async def _states(self) -> dict[str, int]:
        """How many replicas are in which of Serve's states."""
        application = await asyncio.to_thread(_application, self._handle.app_name)
        deployment = application.deployments.get(self._handle.deployment_name)
        return dict(deployment.replica_states) if deployment else {}

    async def describe(self) -> EngineInfo:
        """See ``ports.Transcriber.describe``."""
        if self._described and not (self._used and time.monotonic() - self._described[0] > DESCRIPTION_TTL_S):
            return self._described[1]
        try:
            info = cast("EngineInfo", await self._handle.describe.remote())
        except (RayError, RayServeException) as error:
            raise ServiceStarting("No replica answers yet.") from error
        self._described, self._used = (time.monotonic(), info), False
        return info


class SummarizerHandle:
    """``ports.Summarizer`` over the Summarizer deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def summarize(self, order: SummaryJob) -> Summary:
        """See ``ports.Summarizer.summarize``."""
        answer = await _call(self._handle, "summarize", order)
        if isinstance(answer, MurmurationError):
            raise answer
        return cast("Summary", answer)


def _application(name: str) -> ApplicationStatusOverview:
    try:
        return serve.status().applications[name]
    except (KeyError, RayError, RayServeException) as error:
        raise ServiceStarting("The application is not up yet.") from error
