"""Error responses: the one table that maps errors to HTTP statuses, and the one shape of each API.

``/v1`` responds in OpenAI's shape, every other path in the task API's, including unknown routes and internal errors.
Internal errors are logged once, here, with their traceback; clients receive a sentence.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi import Request, Response

from deployments.api.request.content_encoding import ENCODINGS
from deployments.api.response.openai_errors import is_openai_route, openai_error, openai_status
from deployments.api.response.request_echo import request_params, request_url
from deployments.api.response.schemas import ErrorBody, ErrorDetail, FieldProblem
from deployments.api.services import services_of
from pipeline import errors
from pipeline.domain.text.wording import sentence

logger = logging.getLogger(__name__)

STATUSES: Mapping[type[errors.MurmurationError], int] = {
    errors.MurmurationError: 500,
    errors.RequestError: 400,
    errors.InvalidValue: 422,
    errors.UploadStalled: 408,
    errors.UploadTooLarge: 413,
    errors.AddressTooLong: 414,
    errors.HeadersTooLarge: 431,
    errors.UploadNotFound: 404,
    errors.UploadStateConflict: 409,
    errors.ChecksumMismatch: 460,  # defined by tus, https://tus.io/protocols/resumable-upload#checksum
    errors.ProtocolVersionUnsupported: 412,
    errors.NotAuthenticated: 401,
    errors.ScopeMissing: 403,
    errors.UnsupportedMediaType: 415,
    errors.UnsupportedContentEncoding: 415,
    errors.TaskNotFound: 404,
    errors.ModelNotFound: 404,
    errors.CrawlRecordNotFound: 404,
    errors.TaskStateConflict: 409,
    errors.IdempotencyConflict: 409,
    errors.MediaError: 422,
    errors.DecoderCrashed: 422,
    errors.SourceError: 502,
    errors.SourceTimeout: 504,
    errors.SourceTooLarge: 413,
    errors.PrivateOrRemoved: 422,
    errors.LiveStream: 422,
    errors.LlmError: 502,
    errors.LlmTimeout: 504,
    errors.Unavailable: 503,
    errors.LimitReached: 429,
    errors.TaskCancelled: 409,
    errors.ReplicaLost: 503,
    errors.ModelUnavailable: 503,
}
"""Status of an error class and of its subclasses, unless they have an entry of their own."""


def status_of(error: type[errors.MurmurationError]) -> int:
    """Return the HTTP status of an error class."""
    return next(STATUSES[cls] for cls in error.__mro__ if cls in STATUSES)


def status_of_code(code: str) -> int:
    """Return the HTTP status of an error stored by its code; 500 for a code that this version does not know."""
    return _statuses_by_code(errors.MurmurationError).get(code, 500)


def _statuses_by_code(error: type[errors.MurmurationError]) -> dict[str, int]:
    below = [_statuses_by_code(child) for child in error.__subclasses__()]
    return {error.code: status_of(error)} | {code: status for codes in below for code, status in codes.items()}


def error_response(
    request: Request,
    status: int,
    error: str,
    message: str,
    *,
    fields: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an error response in the shape of the API that was called."""
    if is_openai_route(request.scope):
        status = openai_status(status)
        param = fields[0].field if fields else None
        content = openai_error(status, error, message, param).model_dump_json()
    else:
        content = _task_api_error(request, status, error, message, fields)
    return Response(content, status, headers=dict(headers or {}), media_type="application/json")


def _task_api_error(request: Request, status: int, error: str, message: str, fields: Sequence[FieldProblem]) -> str:
    detail = ErrorDetail(
        code=status,
        error=error,
        message=sentence(message),
        time=services_of(request).clock.now(),
        router=request_url(request),
        params=request_params(request),
        errors=list(fields) or None,
    )
    return ErrorBody(detail=detail).model_dump_json(exclude=None if fields else {"detail": {"errors"}})


def response_to(request: Request, error: errors.MurmurationError) -> Response:
    """Return the response for one of our errors, in the shape of the API that was called. Middleware calls it too."""
    status = status_of(type(error))
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, errors.RecordUnreadable):
        return unexpected_error(request, error)
    problems = error.problems if isinstance(error, errors.InvalidValue) else ()
    fields = [FieldProblem(field=field, message=message) for field, message in problems]
    return error_response(request, status, error.code, error.message, fields=fields, headers=_headers(error))


def _headers(error: errors.MurmurationError) -> dict[str, str]:
    if isinstance(error, errors.Unavailable):
        return {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, errors.NotAuthenticated):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, errors.ProtocolVersionUnsupported):
        return {"Tus-Version": "1.0.0"}
    if isinstance(error, errors.UnsupportedContentEncoding):
        return {"Accept-Encoding": ", ".join(ENCODINGS)}  # RFC 9110, §12.5.3
    return {}


def unexpected_error(request: Request, error: Exception) -> Response:
    """Log an error that is not one of ours, and return the response for it."""
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_response(
        request,
        500,
        errors.MurmurationError.code,
        "The service failed with an internal error, which has been logged. Your request did not cause it.",
    )
