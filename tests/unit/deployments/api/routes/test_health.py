from __future__ import annotations

from dataclasses import replace

import httpx

from deployments.api.services import Readiness
from pipeline.domain.confinement_level import Confinement
from tests.unit.deployments.api.world import ENGINE, World, client_of, detail


async def test_check(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/health/check")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_says_what_runs(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/health/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert answer.json()["engine"]["model"] == "base"


async def test_ready_does_not_tell_where_a_model_lies(client: httpx.AsyncClient, world: World) -> None:
    world.readiness = Readiness(ready=True, engine=replace(ENGINE, model="/srv/models/ours"))
    assert (await client.get("/api/health/ready")).json()["engine"]["model"] == "ours"


async def test_ready_before_anyone_knows_what_runs(client: httpx.AsyncClient, world: World) -> None:
    world.readiness = Readiness(ready=True)
    assert (await client.get("/api/health/ready")).json() == {"status": "ready", "engine": None}


async def test_ready_says_what_fails_in_the_background(client: httpx.AsyncClient, world: World) -> None:
    world.readiness = Readiness(ready=True, failure_messages=("Showing the queue fails: see the log.",))
    answer = await client.get("/api/health/ready")
    assert answer.status_code == 200
    assert answer.json()["problems"] == ["Showing the queue fails: see the log."]


async def test_ready_says_what_confinement_holds(world: World) -> None:
    world.confinement = Confinement(True, True, True, True, True, False)
    async with client_of(world.api()) as client:
        answer = await client.get("/api/health/ready")
    assert answer.json()["confinement"] == {
        "level": "partial",
        **dict.fromkeys(("filesystem", "network", "processes", "signals", "privileges"), True),
        "memory": False,
    }


async def test_not_ready_says_what_is_missing(client: httpx.AsyncClient, world: World) -> None:
    world.readiness = Readiness(ready=False, waiting_for=("a GPU node", "the model"))
    answer = await client.get("/api/health/ready")
    assert detail(answer, 503, "service_starting")["message"] == "Not ready yet: waiting for a GPU node, the model."
    assert answer.headers["retry-after"] == "5"


async def test_not_ready_without_a_database(client: httpx.AsyncClient, world: World) -> None:
    world.store.available = False
    detail(await client.get("/api/health/ready"), 503, "database_unavailable")


async def test_not_ready_on_a_cluster_it_can_not_serve(client: httpx.AsyncClient, world: World) -> None:
    world.readiness = Readiness(ready=False, engine=ENGINE, problems=("SQLite serves a single node.",))
    answer = await client.get("/api/health/ready")
    assert detail(answer, 503, "service_starting")["message"] == "SQLite serves a single node."
