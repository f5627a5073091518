"""A receiver for trying out callbacks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from deployments.api.concurrency.cooperative_json import read_object, written
from deployments.api.dependencies import ServicesDep
from deployments.api.request.body import RequestBody
from deployments.api.request.caller import client_name
from deployments.api.response.envelope import envelope_pieces, error_responses
from deployments.api.response.large_json import SpoolResponse, object_pieces, spooled, text_json
from deployments.api.response.schemas import Envelope, Schema

MAX_CALLBACK_BYTES = 32 * 1024 * 1024
"""Largest callback. The record of a day of speech has 10 MB."""

_EXPECTATION = "The body must be a JSON object in UTF-8, such as a task's record."

router = APIRouter(prefix="/api/whisper/callback", tags=["callback"])


class CallbackEcho(Schema):
    """A received callback."""

    message: str
    callback_data: dict[str, Any]
    """The content of the callback."""


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
    """Receive a callback and return it, for trying out `callback_url`."""
    content = await RequestBody(request).read(MAX_CALLBACK_BYTES)
    async with services.transcript_slots.hold(client_name(request)):
        record = await read_object(content, services.workers, _EXPECTATION)
        data = object_pieces((("message", text_json("The callback has arrived.")), ("callback_data", written(record))))
        return SpoolResponse(await spooled(services.workers, envelope_pieces(request, data)), "application/json")
