"""Errors in OpenAI's shape, for all paths under ``/v1``, including unknown routes and internal errors."""

from __future__ import annotations

from http import HTTPStatus

from pydantic import Field
from starlette.types import Scope

from deployments.api.response.schemas import Schema
from pipeline.domain.text.wording import sentence

PREFIX = "/v1"


class OpenAIError(Schema):
    """The details of an error."""

    message: str
    """A sentence about the cause and the remedy."""
    type: str = Field(examples=["invalid_request_error"])
    """`invalid_request_error`, `rate_limit_error` or `server_error`."""
    param: str | None = Field(examples=["language"])
    """The invalid field."""
    code: str | None = Field(examples=["invalid_value"])
    """Stable name of the error, for use in programs."""


class OpenAIErrorBody(Schema):
    """The shape of all errors on the OpenAI routes."""

    error: OpenAIError


def is_openai_route(scope: Scope) -> bool:
    """Return whether a request is for the OpenAI routes."""
    path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def openai_status(status: int) -> int:
    """Return the status for OpenAI's clients: 400 for an invalid value, since 422 has another meaning there."""
    return HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status


def openai_error(status: int, code: str, message: str, param: str | None = None) -> OpenAIErrorBody:
    """Return the body of an error."""
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    kind = "rate_limit_error" if status == HTTPStatus.TOO_MANY_REQUESTS else kind
    return OpenAIErrorBody(error=OpenAIError(message=sentence(message), type=kind, param=param, code=code))
