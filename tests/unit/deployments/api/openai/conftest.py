"""The application with a Dispatcher, called by OpenAI's own client without a socket and without a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import pytest
from fastapi import FastAPI

from deployments.api.services import Readiness
from tests.unit.deployments.api.openai.service import Service
from tests.unit.deployments.api.world import ENGINE


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    service.readiness = Readiness(ready=True, engine=ENGINE)
    await service.task_dispatcher.prepare()
    running = asyncio.create_task(service.task_dispatcher.run())
    yield service
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def api(service: Service) -> FastAPI:
    return service.api()


@pytest.fixture
async def http(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


@pytest.fixture
def client(http: httpx.AsyncClient) -> openai.AsyncOpenAI:
    """OpenAI's client without retries."""
    return openai.AsyncOpenAI(api_key="any", base_url="http://service/v1", http_client=http, max_retries=0)
