"""A receiver for callbacks, to try them out with."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from deployments.api.concurrency.cooperative_json import read_object, written
from deployments.api.middleware.admission import client_name
from deployments.api.request.multipart import open_body
from deployments.api.response.envelope import ServicesDep, envelope_pieces, error_responses, results_gate
from deployments.api.response.large_json import SpoolResponse, object_pieces, spooled, text_json
from deployments.api.response.schemas import Envelope, Schema

MAX_CALLBACK_BYTES = 32 * 1024 * 1024
"""The record of a day of speech has 10 MB."""

_WANTED = "The body must be a JSON object in UTF-8, such as a task's record."

router = APIRouter(prefix="/api/whisper/callback", tags=["callback"])


class CallbackEcho(Schema):
    """A callback that has arrived."""

    message: str
    callback_data: dict[str, Any]
    """What was sent."""


@router.post(
    "/test",
    response_model=Envelope[CallbackEcho],
    responses=error_responses(400, 408, 413, 415, 422),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"type": "object"}, "example": {"id": 1, "status": "completed"}}
            },
        }
    },
)
async def receive_callback(request: Request, services: ServicesDep) -> Response:
    """Take a callback and send it back, for trying out `callback_url`."""
    async with open_body(request) as body:
        sent = await body.read(MAX_CALLBACK_BYTES)
    async with results_gate(request).one(client_name(request)):
        record = await read_object(sent, services.workers, _WANTED)
        data = object_pieces((("message", text_json("The callback has arrived.")), ("callback_data", written(record))))
        return SpoolResponse(await spooled(services.workers, envelope_pieces(request, data)), "application/json")
