"""The HTTP application over the shipped fakes, and a client that calls it without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.unit.deployments.api.world import World, client_of


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world.api()) as client:
        yield client
