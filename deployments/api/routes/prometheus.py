"""The metrics of the service for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from deployments.api.dependencies import ServicesDep

router = APIRouter(tags=["operations"])


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: ServicesDep) -> PlainTextResponse:
    """Return the metrics of all nodes in Prometheus's text format."""
    return PlainTextResponse(await services.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")
