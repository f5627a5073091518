"""``/v1/models``: the names that requests accept as a model."""

from __future__ import annotations

from fastapi import APIRouter, Request

from deployments.api.dependencies import ServicesDep
from deployments.api.openai.audio_form import AudioFields
from deployments.api.openai.bodies import ModelBody, ModelList
from deployments.api.openai.transcript_formats import openai_error_responses
from deployments.api.request.task_options import TaskRequest, check_engine, public_model_name
from deployments.api.services import Services
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.tasks.submission import Submission
from pipeline.errors import ModelNotFound, ServiceStarting

ALIAS = "whisper-1"
"""OpenAI's name for Whisper. It stands for the loaded model."""
PUBLISHED_AT = 1_663_718_400
"""21 September 2022, when OpenAI published Whisper."""

router = APIRouter(prefix="/v1/models", tags=["openai"])


@router.get("", responses=openai_error_responses())
async def list_models(services: ServicesDep) -> ModelList:
    """List the names that `model` accepts. They all mean the loaded model."""
    return ModelList(data=[_model(name) for name in await _names(services)])


@router.get(
    "/{model:path}",
    responses=openai_error_responses(404),
    openapi_extra={
        "parameters": [
            {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}, "example": ALIAS}
        ]
    },
)
async def get_model(request: Request, services: ServicesDep) -> ModelBody:
    """Return a model if requests accept its name."""
    model: str = request.path_params["model"]
    if model not in await _names(services):
        raise model_not_found(model)
    return _model(model)


async def check_model(transcript_request: AudioFields, services: Services) -> None:
    """Refuse a model other than the loaded one, and a language that the model does not know.

    Raises:
        ModelNotFound: the request names another model.
        InvalidValue: the model does not know the language.
        ServiceStarting: no model is loaded yet, so the name can't be checked.
    """
    names_model = transcript_request.model not in (None, ALIAS)
    if not (names_model or transcript_request.language or transcript_request.languages):
        return  # nothing depends on the loaded model
    engine = await services.engine()
    configured = services.settings.asr.model
    options = TranscriptionOptions(language=transcript_request.language, languages=transcript_request.languages)
    check_engine(TaskRequest(Submission(options=options), None), engine, configured)
    if not names_model:
        return
    if engine is None and configured is None:
        raise ServiceStarting("No model is loaded yet, so the name in model can't be checked: try again soon.")
    loaded = engine.model if engine else configured
    if transcript_request.model not in (loaded, public_model_name(str(loaded))):
        raise model_not_found(str(transcript_request.model))


def model_not_found(model: str) -> ModelNotFound:
    """Return the error for a name that means no model here."""
    return ModelNotFound(f"The model {model[:100]!a} does not exist here: see /v1/models, or use {ALIAS}.")


async def _names(services: Services) -> list[str]:
    engine = await services.engine()
    loaded = engine.model if engine else services.settings.asr.model
    return [public_model_name(loaded), ALIAS] if loaded else [ALIAS]


def _model(name: str) -> ModelBody:
    return ModelBody(id=name, created=PUBLISHED_AT, owned_by="openai")
