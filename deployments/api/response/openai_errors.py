"""Errors in OpenAI's shape: what everything under ``/v1`` answers, unknown routes and defects included."""

from __future__ import annotations

from http import HTTPStatus

from pydantic import Field
from starlette.types import Scope

from deployments.api.response.schemas import Schema
from pipeline.domain.text.wording import sentence

PREFIX = "/v1"


class OpenAIError(Schema):
    """What went wrong."""

    message: str
    """A sentence that says what to do about it."""
    type: str = Field(examples=["invalid_request_error"])
    """`invalid_request_error`, `rate_limit_error` or `server_error`."""
    param: str | None = Field(examples=["language"])
    """The field in question."""
    code: str | None = Field(examples=["invalid_value"])
    """Stable name of the error, to be switched on."""


class OpenAIErrorBody(Schema):
    """Every error of the OpenAI routes."""

    error: OpenAIError


def is_openai_route(scope: Scope) -> bool:
    """Whether a request is for this surface."""
    path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def openai_status(status: int) -> int:
    """A value that can't be is a bad request there: OpenAI's 422 means something else."""
    return HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status


def openai_error(status: int, code: str, message: str, param: str | None = None) -> OpenAIErrorBody:
    """The body of an error."""
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    kind = "rate_limit_error" if status == HTTPStatus.TOO_MANY_REQUESTS else kind
    return OpenAIErrorBody(error=OpenAIError(message=sentence(message), type=kind, param=param, code=code))
