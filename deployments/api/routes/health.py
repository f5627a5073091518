"""Liveness and readiness of the service."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from deployments.api.dependencies import ServicesDep
from deployments.api.request.task_options import public_model_name
from deployments.api.response.envelope import error_responses
from deployments.api.response.schemas import ConfinementBody, EngineBody, HealthBody, ReadyBody
from deployments.api.services import Readiness, Services
from pipeline.errors import ServiceStarting

router = APIRouter(prefix="/api/health", tags=["health"])


@router.get("/check")
async def check() -> HealthBody:
    """Return 200 as long as the process runs."""
    return HealthBody()


@router.get("/ready", responses=error_responses(), response_model_exclude_unset=True)
async def ready(services: ServicesDep) -> ReadyBody:
    """Return 200 once a model is loaded and the database responds; else 503 with what is not ready."""
    await services.store.ping()
    readiness = await services.readiness()
    if readiness.problems:
        raise ServiceStarting(" ".join(readiness.problems))
    if not readiness.ready:
        raise ServiceStarting(f"Not ready yet: waiting for {', '.join(readiness.waiting_for) or 'the model'}.")
    return ReadyBody(status="ready", engine=_engine(readiness), **_remarks(services, readiness))


def _engine(readiness: Readiness) -> EngineBody | None:
    if readiness.engine is None:
        return None
    shown = asdict(readiness.engine) | {"model": public_model_name(readiness.engine.model)}
    return EngineBody.model_validate(shown)


def _remarks(services: Services, readiness: Readiness) -> dict[str, Any]:
    """Return the optional fields that have a value."""
    remarks: dict[str, Any] = {}
    if readiness.failure_messages:
        remarks["problems"] = list(readiness.failure_messages)
    if confinement := services.confinement:
        remarks["confinement"] = ConfinementBody.model_validate(asdict(confinement) | {"level": confinement.level})
    return remarks
