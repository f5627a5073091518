"""Ports satisfied by handles to other deployments: what is one method call in a test is a hop through Ray here.

A replica that dies with a call in hand shows as ``RayActorError``; Serve does not retry what a replica has accepted,
and should not: the queue knows better where the work goes next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatusOverview

from pipeline.domain.summary import Summary
from pipeline.domain.transcript import ChunkResult
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
    SummaryOrder,
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
        async for event in _stream(self._handle, "split", request):
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


class TranscriberHandle:
    """``ports.Transcriber`` over the WhisperReplica deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def transcribe(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkResult | ChunkFailure], None]:
        """See ``ports.Transcriber.transcribe``."""
        async for results in _stream(self._handle, "transcribe", unit):
            yield results

    async def describe(self) -> EngineInfo:
        """See ``ports.Transcriber.describe``."""
        try:
            return cast("EngineInfo", await self._handle.describe.remote())
        except (RayError, RayServeException) as error:
            raise ServiceStarting("No replica answers yet.") from error

    async def replica_count(self) -> int:
        """See ``ports.Transcriber.replica_count``."""
        application = await asyncio.to_thread(_application, self._handle.app_name)
        deployment = application.deployments.get(self._handle.deployment_name)
        return deployment.replica_states.get("RUNNING", 0) if deployment else 0


class SummarizerHandle:
    """``ports.Summarizer`` over the Summarizer deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def summarize(self, order: SummaryOrder) -> Summary:
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
