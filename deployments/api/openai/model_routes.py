"""``/v1/models``: what can be named as a model."""

from __future__ import annotations

from fastapi import APIRouter, Request

from deployments.api.openai.audio_form import AudioFields
from deployments.api.openai.bodies import ModelBody, ModelList
from deployments.api.openai.transcript_formats import openai_error_responses
from deployments.api.request.task_options import TaskRequest, check_engine, public_model_name
from deployments.api.response.envelope import ServicesDep
from deployments.api.services import Services
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.errors import ModelNotFound, ServiceStarting
from pipeline.usecases.tasks.submit import Submission

ALIAS = "whisper-1"
"""OpenAI's name for Whisper: here it means the model that is loaded."""
PUBLISHED_AT = 1_663_718_400
"""21 September 2022, when OpenAI published Whisper."""

router = APIRouter(prefix="/v1/models", tags=["openai"])


@router.get("", responses=openai_error_responses())
async def list_models(services: ServicesDep) -> ModelList:
    """List the names that can be given as `model`: they all mean the model that is loaded."""
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
    """Say whether a model can be named."""
    model: str = request.path_params["model"]
    if model not in await _names(services):
        raise model_not_found(model)
    return _model(model)


async def check_model(transcript_request: AudioFields, services: Services) -> None:
    """Refuses another model than the one that is loaded, and a language it does not know.

    Raises:
        ModelNotFound: another model.
        InvalidValue: a language.
        ServiceStarting: it can't be said before a model is loaded.
    """
    names_model = transcript_request.model not in (None, ALIAS)
    if not (names_model or transcript_request.language or transcript_request.languages):
        return  # no need to ask
    engine = await services.engine()
    configured = services.settings.asr.model
    options = TranscriptionOptions(language=transcript_request.language, languages=transcript_request.languages)
    check_engine(TaskRequest(Submission(options=options), None), engine, configured)
    if not names_model:
        return
    if engine is None and configured is None:
        raise ServiceStarting("No model is loaded yet, so it can't be said whether it is the one you named.")
    loaded = engine.model if engine else configured
    if transcript_request.model not in (loaded, public_model_name(str(loaded))):
        raise model_not_found(str(transcript_request.model))


def model_not_found(model: str) -> ModelNotFound:
    """The error for a model of another name."""
    return ModelNotFound(f"The model {model[:100]!a} does not exist here: see /v1/models, or use {ALIAS}.")


async def _names(services: Services) -> list[str]:
    engine = await services.engine()
    loaded = engine.model if engine else services.settings.asr.model
    return [public_model_name(loaded), ALIAS] if loaded else [ALIAS]


def _model(name: str) -> ModelBody:
    return ModelBody(id=name, created=PUBLISHED_AT, owned_by="openai")
