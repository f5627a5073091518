"""Whether the service answers, and whether it transcribes."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter

from deployments.api.answers import ServicesNeeded, problems
from deployments.api.options import public_model_name
from deployments.api.schemas import ConfinementBody, EngineBody, HealthBody, ReadyBody
from pipeline.errors import ServiceStarting

router = APIRouter(prefix="/api/health", tags=["health"])


@router.get("/check")
async def check() -> HealthBody:
    """Answer as long as the process lives."""
    return HealthBody()


@router.get("/ready", responses=problems(), response_model_exclude_unset=True)
async def ready(services: ServicesNeeded) -> ReadyBody:
    """Answer 200 once a model has been loaded and the database answers; 503 says what is not ready."""
    await services.store.ping()
    readiness = await services.readiness()
    if readiness.problems:
        raise ServiceStarting(" ".join(readiness.problems))
    if not readiness.ready:
        raise ServiceStarting(f"Not ready yet: waiting for {', '.join(readiness.waiting_for) or 'the model'}.")
    engine = readiness.engine
    body = ReadyBody(
        status="ready",
        engine=EngineBody.model_validate(asdict(engine) | {"model": public_model_name(engine.model)})
        if engine
        else None,
    )
    if services.confinement is None:
        return body
    confinement = asdict(services.confinement) | {"level": services.confinement.level}
    return body.model_copy(update={"confinement": ConfinementBody.model_validate(confinement)})
