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

from deployments.api.concurrency.event_loop import FairSemaphore
from deployments.api.documentation.openapi import Api
from deployments.api.middleware.admission import AdmissionMiddleware, RequestLimits, RequestSlots
from deployments.api.middleware.auth import Authenticator, AuthMiddleware
from deployments.api.middleware.backpressure import FlowControlMiddleware, UnreadBudget
from deployments.api.middleware.body_limit import BodyLimitMiddleware
from deployments.api.middleware.decompression import DecompressionMiddleware
from deployments.api.middleware.head_limit import HeadLimitMiddleware
from deployments.api.middleware.security_headers import SecurityHeadersMiddleware, cross_origin
from deployments.api.openai import audio_routes, model_routes
from deployments.api.request.routing import ImpliedMethodsMiddleware, PlainPathMiddleware
from deployments.api.response import problems
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
from deployments.api.services import Services
from pipeline.usecases.tasks.resumable_uploads import ResumableUploads
from pipeline.usecases.tasks.submit import Submitter

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
    attach(app, services)
    problems.install_error_handlers(app)
    _add_middleware(app, services)
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


def _add_middleware(app: FastAPI, services: Services) -> None:
    """Add the middleware. The list runs from the outermost layer inwards; Starlette expects the reverse order."""
    layers = [
        Middleware(FlowControlMiddleware),
        *cross_origin(services.settings.http.cors_origins),
        Middleware(SecurityHeadersMiddleware),
        Middleware(HeadLimitMiddleware),
        Middleware(PlainPathMiddleware),
        Middleware(ImpliedMethodsMiddleware),
        Middleware(BodyLimitMiddleware),
        Middleware(problems.ServerErrorMiddleware),
        Middleware(AuthMiddleware),
        Middleware(AdmissionMiddleware),
        Middleware(DecompressionMiddleware),
    ]
    for layer in reversed(layers):
        app.add_middleware(layer.cls, *layer.args, **layer.kwargs)


def attach(app: FastAPI, services: Services) -> None:
    """Store the services in ``app.state``, where the routes and the middleware read them."""
    app.state.services = services
    app.state.authenticator = Authenticator(services.settings.auth)
    app.state.slots = RequestSlots(RequestLimits.from_settings(services.settings.http, services.capacity))
    app.state.unread = UnreadBudget(services.settings.http.max_unread_bytes)
    app.state.transcript_slots = FairSemaphore(services.settings.http.max_results_in_hand)
    app.state.stream_slots = FairSemaphore(services.settings.http.max_replays_in_hand)
    app.state.uploads = ResumableUploads(
        services.uploads,
        services.media,
        services.clock,
        max_upload_bytes=services.settings.media.max_upload_bytes,
        ttl_s=services.settings.http.resumable_ttl_s,
    )
    app.state.submitter = Submitter(
        services.store,
        services.media,
        services.dispatcher.wake,
        clock=services.clock,
        max_upload_bytes=services.settings.media.max_upload_bytes,
        max_queued_tasks=services.settings.dispatch.max_queued_tasks,
        max_queued_audio_s=services.settings.dispatch.max_queued_audio_s,
        orphan_age_s=services.settings.media.orphan_age_s,
        fetch_available=services.fetch_available,
        check_url=services.check_url,
        llm=services.settings.llm,
    )


@DOCS.get("/")
async def root(request: Request) -> Response:
    """Redirect to the documentation."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")


@DOCS.get("/openapi.json")
async def openapi_document(request: Request) -> Response:
    """Serve the OpenAPI document."""
    app: Api = request.app
    prefix = str(request.scope.get("root_path", ""))
    content = await app.state.services.workers.run(app.written_document, prefix)
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
