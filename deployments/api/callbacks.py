"""A receiver for callbacks, to try them out with."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from typing import Any

from fastapi import APIRouter, Request, Response

from deployments.api.answers import answer, problems
from deployments.api.schemas import Envelope, Schema
from deployments.api.uploads import open_body
from pipeline.errors import InvalidValue

MAX_CALLBACK_BYTES = 32 * 1024 * 1024
"""The record of a day of speech has 10 MB."""

router = APIRouter(prefix="/api/whisper/callback", tags=["callback"])


class CallbackEcho(Schema):
    """A callback that has arrived."""

    message: str
    callback_data: dict[str, Any]
    """What was sent."""


@router.post(
    "/test",
    response_model=Envelope[CallbackEcho],
    responses=problems(400, 408, 413, 415, 422),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"type": "object"}, "example": {"id": 1, "status": "completed"}}
            },
        }
    },
)
async def receive_callback(request: Request) -> Response:
    """Take a callback and send it back, for trying out `callback_url`."""
    async with open_body(request) as body:
        record = _object(await body.read(MAX_CALLBACK_BYTES))
    return answer(request, CallbackEcho(message="The callback has arrived.", callback_data=record))


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(_without_surrogates(json.loads(body.removeprefix(BOM_UTF8), parse_constant=_no_number)))
    except (ValueError, RecursionError) as error:
        raise InvalidValue("The body must be a JSON object, such as a task's record.") from error
    if not isinstance(value, dict):
        raise InvalidValue("The body must be a JSON object, such as a task's record.")
    return value


def _without_surrogates(value: object) -> str:
    """Return the value as JSON, with U+FFFD for halves of surrogate pairs: JSON may escape them, UTF-8 has none."""
    text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
