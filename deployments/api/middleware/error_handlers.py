"""The handlers that convert every error of the application to a response, and the middleware for unexpected ones."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.request.forms import invalid_value
from deployments.api.request.routing import allowed, methods_at
from deployments.api.response.problems import error_response, response_to, unexpected_error
from pipeline.errors import MurmurationError


def install_error_handlers(app: FastAPI) -> None:
    """Register the handlers that convert every error of the application to a response."""
    app.add_exception_handler(MurmurationError, _murmuration_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)


async def _murmuration_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MurmurationError)  # noqa: S101 (registered for nothing else)
    return response_to(request, error)


async def _http_exception(request: Request, error: Exception) -> Response:
    """Convert Starlette's own errors: unknown routes, and methods that a route does not accept."""
    assert isinstance(error, HTTPException)  # noqa: S101
    if isinstance(error.__cause__, MurmurationError):  # FastAPI wraps errors of reading a body
        return response_to(request, error.__cause__)
    status = HTTPStatus(error.status_code)
    message = {
        HTTPStatus.NOT_FOUND: f"There is no route {request.url.path[:200]}: see /docs for all routes.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"This route does not accept {request.method}: see /docs.",
    }.get(status, f"{status.phrase}.")
    headers = error.headers
    if status == HTTPStatus.METHOD_NOT_ALLOWED:  # Starlette's Allow names the methods of only one route of the path
        headers = {"Allow": allowed(methods_at(request.scope))}
    return error_response(request, status, status.name.lower(), message, headers=headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    details = [detail | {"loc": detail["loc"][1:]} for detail in error.errors()]  # without "query"
    return await _murmuration_error(request, invalid_value(details))


class ServerErrorMiddleware:
    """The outermost error handler: it logs an unexpected exception once, and responds if that is still possible."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process a request, and convert an unexpected exception to a response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            if started:  # the status was sent: only a broken connection can still signal the error
                raise
            await unexpected_error(Request(scope), error)(scope, receive, send)
