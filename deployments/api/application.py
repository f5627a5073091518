"""Construction of the HTTP application from its services. There are no globals, so tests build one from fakes."""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files

from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.security import HTTPBearer
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from deployments.api.documentation.openapi import Api
from deployments.api.middleware.admission import AdmissionMiddleware, RequestLimits, RequestSlots
from deployments.api.middleware.authentication import Authenticator, AuthMiddleware
from deployments.api.middleware.backpressure import FlowControlMiddleware, UnreadBudget
from deployments.api.middleware.body_limit import BodyLimitMiddleware
from deployments.api.middleware.decompression import DecompressionMiddleware
from deployments.api.middleware.error_handlers import ServerErrorMiddleware, install_error_handlers
from deployments.api.middleware.head_limit import HeadLimitMiddleware
from deployments.api.middleware.path_rewriting import ImpliedMethodsMiddleware, PlainPathMiddleware
from deployments.api.middleware.security_headers import SecurityHeadersMiddleware, cross_origin
from deployments.api.openai import audio_routes, model_routes
from deployments.api.routes import (
    audio,
    callback_echo,
    events,
    health,
    links,
    prometheus,
    subtitles,
    summaries,
    tasks,
    tus,
)
from deployments.api.services import Services, services_of

DOCS = APIRouter(include_in_schema=False)
KEY = HTTPBearer(scheme_name="key", auto_error=False, description="A key of the service.")

TAGS = [
    {"name": "tasks", "description": "Recordings that wait for a transcript, and finished transcripts."},
    {
        "name": "resumable uploads",
        "description": "Resumable uploads (tus 1.0) of recordings that are too large for one request.",
    },
    {"name": "subtitles", "description": "Transcripts as subtitle files."},
    {"name": "audio", "description": "Audio extraction without transcription."},
    {"name": "callback", "description": "A receiver for trying out `callback_url`."},
    {"name": "links", "description": "Recordings behind links: TikTok, Douyin, and every site that yt-dlp supports."},
    {"name": "summary", "description": "Summaries of transcripts by a language model."},
    {"name": "openai", "description": "OpenAI's audio API, for unmodified OpenAI clients."},
    {"name": "health", "description": "Liveness and readiness of the service."},
]


def build_api(services: Services) -> FastAPI:
    """Build the application that serves ``services``."""
    app = Api(
        title="Murmuration",
        version=version("murmuration-asr"),
        description="Distributed Whisper transcription: queue recordings, read transcripts, subtitles and summaries.",
        openapi_tags=TAGS,
        docs_url=None,  # served below, with local scripts instead of a CDN's
        redoc_url=None,
        redirect_slashes=False,  # PlainPathMiddleware removes the slashes instead
    )
    install_error_handlers(app)
    connect(app, services)
    needs_key = [Security(KEY)] if services.settings.auth.keys else []  # documentation: AuthMiddleware checks it
    for router in (
        tasks.router,
        links.router,
        tus.router,
        events.router,
        subtitles.router,
        summaries.router,
        audio_routes.router,
        model_routes.router,
        audio.router,
        callback_echo.router,
        prometheus.router,
    ):
        app.include_router(router, dependencies=needs_key)
    for router in (health.router, DOCS):
        app.include_router(router)
    app.mount("/docs/assets", StaticFiles(directory=str(files("fastapi_swagger") / "resources")))
    return app


def connect(app: FastAPI, services: Services) -> None:
    """Connect an application to its services: ``services_of`` returns them, and the middleware is made of them.

    An application may be connected again, to other services. Tests share one, since its routes are slow to build.
    """
    app.state.services = services
    app.user_middleware = _middleware(services)
    app.middleware_stack = None  # Starlette builds it at the next request


def _middleware(services: Services) -> list[Middleware]:
    """Return the middleware, from the outermost layer inwards."""
    settings = services.settings
    slots = RequestSlots(RequestLimits.from_settings(settings.http, services.capacity))
    return [
        Middleware(FlowControlMiddleware, services=services, unread=UnreadBudget(settings.http.max_unread_bytes)),
        *cross_origin(settings.http.cors_origins),
        Middleware(SecurityHeadersMiddleware),
        Middleware(HeadLimitMiddleware),
        Middleware(PlainPathMiddleware),
        Middleware(ImpliedMethodsMiddleware),
        Middleware(BodyLimitMiddleware, settings=settings, clock=services.clock),
        Middleware(ServerErrorMiddleware),
        Middleware(AuthMiddleware, authenticator=Authenticator(settings.auth)),
        Middleware(AdmissionMiddleware, slots=slots, count=services.count),
        Middleware(DecompressionMiddleware, max_upload_bytes=settings.media.max_upload_bytes),
    ]


@DOCS.get("/")
async def root(request: Request) -> Response:
    """Redirect to the documentation."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")


@DOCS.get("/openapi.json")
async def openapi_document(request: Request) -> Response:
    """Serve the OpenAPI document."""
    app: Api = request.app
    prefix = str(request.scope.get("root_path", ""))
    content = await services_of(request).workers.run(app.written_document, prefix)
    return Response(content, media_type="application/json")


@DOCS.get("/docs")
async def swagger(request: Request) -> Response:
    """Serve Swagger UI with local assets only."""
    prefix = request.scope.get("root_path", "")
    return get_swagger_ui_html(
        openapi_url=f"{prefix}/openapi.json",
        title="Murmuration",
        swagger_js_url=f"{prefix}/docs/assets/swagger-ui-bundle.js",
        swagger_css_url=f"{prefix}/docs/assets/swagger-ui.css",
        swagger_favicon_url=f"{prefix}/docs/assets/favicon-32x32.png",
    )
