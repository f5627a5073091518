"""The options of a new task: fields of a query or a form, parsed into values of the domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Annotated, Any

from annotated_types import MaxLen
from pydantic import HttpUrl, TypeAdapter, ValidationError

from deployments.api.request.forms import Form
from deployments.api.services import Services
from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.languages import LANGUAGES, parse_language
from pipeline.domain.decoding.transcription_options import MIN_CLIP_S, TranscriptionOptions
from pipeline.domain.summaries.summary import SummaryOptions
from pipeline.domain.tasks.submission import Submission
from pipeline.domain.tasks.task import Priority
from pipeline.errors import EngineUnavailable, InvalidValue, ServiceStarting
from pipeline.ports import EngineInfo

MAX_LISTED_LANGUAGES = 12
_HTTP_URL: TypeAdapter[HttpUrl] = TypeAdapter(HttpUrl)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFields:
    """The fields that concern the task rather than its decoding."""

    file_url: Annotated[str, MaxLen(2048)] | None = None
    """URL to fetch the recording from, instead of an uploaded file (`http` or `https`). It must be the URL of the file
    itself; links to pages go to `/api/crawl/video_task`."""
    callback_url: Annotated[str, MaxLen(2048)] | None = None
    """URL to POST the task's record to once it is completed or failed (`http` or `https`)."""
    priority: Priority = Priority.NORMAL
    """The priority of the task."""
    platform: Annotated[str, MaxLen(100)] | None = None
    """The platform that the recording comes from. It is stored with the task, and queries can filter by it."""
    engine_name: EngineName = EngineName.FASTER_WHISPER
    """The engine that decodes."""
    model: Annotated[str, MaxLen(200)] | None = None
    """The model. Empty: the loaded model."""
    summarize: bool = False
    """Have a language model summarise the transcript as the last stage. The task completes even if that fails."""
    upload_id: Annotated[str, MaxLen(32)] | None = None
    """A finished resumable upload (tus, at `/api/whisper/uploads`), instead of an uploaded file."""


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """A submission, the requested model (``None``: any), and the id of its resumable upload, if it has one."""

    submission: Submission
    model: str | None
    upload_id: str | None = None


def parse_task_request(values: Mapping[str, object]) -> TaskRequest:
    """Parse task fields and options, given by name as text (HTTP) or as Python values.

    Raises:
        UnknownOption: a name is not an option.
        EngineUnavailable: the engine is not installed.
        InvalidValue: a field has an invalid value. The message names every such field.
    """
    given = TASK_FORM.parse(values)
    options = {field.name: given.pop(field.name) for field in fields(TranscriptionOptions) if field.name in given}
    model, upload_id = given.pop("model", None), given.pop("upload_id", None)
    summary_options = _summary_options(given)
    submission = Submission(options=TranscriptionOptions(**options), summary_options=summary_options, **given)
    if submission.engine_name is not EngineName.FASTER_WHISPER:
        raise EngineUnavailable(
            f"The engine {submission.engine_name} is not installed here: use {EngineName.FASTER_WHISPER}.",
            "engine_name",
        )
    return TaskRequest(submission, model, upload_id)


def _summary_options(given: dict[str, Any]) -> SummaryOptions | None:
    """Remove the fields of the summary from ``given`` and return them as options."""
    explicit = "summarize" in given
    requested = given.pop("summarize", False)
    options = {field.name: given.pop(field.name) for field in fields(SummaryOptions) if field.name in given}
    if options and not explicit:
        raise InvalidValue(f"{next(iter(options))} needs summarize=true beside it.", "summarize")
    return SummaryOptions(**options) if requested else None


async def check_loaded_engine(task_request: TaskRequest, services: Services) -> None:
    """Check a request against the loaded engine, if it names a model or a language. Raises as ``check_engine``."""
    options = task_request.submission.options
    if task_request.model or options.language or options.languages:
        check_engine(task_request, await services.engine(), services.settings.asr.model)


def check_engine(task_request: TaskRequest, engine: EngineInfo | None, configured_model: str | None) -> None:
    """Refuse a request that the loaded model can't serve.

    Args:
        task_request: the request.
        engine: the loaded engine; ``None`` while none is loaded.
        configured_model: the model that will be loaded, if the settings name one.

    Raises:
        EngineUnavailable: the request names another model.
        InvalidValue: the model does not know the language.
        ServiceStarting: no model is loaded yet, so the name can't be checked.
    """
    if engine is None:
        if task_request.model and task_request.model != configured_model:
            raise ServiceStarting("No model is loaded yet, so the name in model can't be checked: try again soon.")
        return
    loaded = public_model_name(engine.model)
    if task_request.model not in (None, engine.model, loaded):
        raise EngineUnavailable(f"The loaded model is {loaded}: use that name, or leave model empty.", "model")
    options = task_request.submission.options
    _check_known("language", (options.language,) if options.language else (), engine)
    _check_known("languages", options.languages, engine)


def public_model_name(model: str) -> str:
    """Return a model's name for clients: for a folder on this server, only its last component."""
    path = PurePath(model)
    return path.name if path.is_absolute() else model


def _check_known(field: str, codes: tuple[str, ...], engine: EngineInfo) -> None:
    unknown = [code for code in codes if code not in engine.languages]
    if not unknown:
        return
    known = f"; it knows {', '.join(engine.languages)}" if len(engine.languages) <= MAX_LISTED_LANGUAGES else ""
    raise InvalidValue(
        f"{field}: the model {public_model_name(engine.model)} does not know {LANGUAGES[unknown[0]].title()}{known}.",
        field,
    )


# --- checks of single fields (ValueError becomes InvalidValue) --------------------------------------------------------


def _languages(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the codes of an allow-list without repetitions; ``auto`` in the list adds nothing."""
    codes = map(parse_language, texts)
    return tuple(dict.fromkeys(code for code in codes if code is not None))


def _clips(times: tuple[float, ...]) -> tuple[float, ...]:
    """Check the clips, given as start and end times in seconds. ``0`` alone means the whole file."""
    if times == (0.0,):
        return ()
    if any(start >= end for start, end in zip(times[::2], times[1::2], strict=False)):
        raise ValueError("Each clip must end after it starts: start,end,start,end … in seconds")
    if any(end - start < MIN_CLIP_S for start, end in zip(times[::2], times[1::2], strict=False)):
        raise ValueError(f"Each clip must last {MIN_CLIP_S:g} s at least: start,end,start,end … in seconds")
    return times


def _zero_as_none(seconds: float | None) -> float | None:
    return seconds or None


def _http_url(text: str) -> str:
    text = text.strip()
    try:
        _HTTP_URL.validate_python(text)
    except ValidationError as error:
        raise ValueError("This must be a complete http:// or https:// address") from error
    return text


CHECKS: dict[str, Callable[[Any], Any]] = {
    "language": parse_language,
    "languages": _languages,
    "summary_language": parse_language,
    "clip_timestamps": _clips,
    "hallucination_silence_threshold": _zero_as_none,
    "callback_url": _http_url,
    "file_url": _http_url,
    "model": str.strip,
    "platform": str.strip,
    "upload_id": str.strip,
}

TASK_FORM = Form(TaskFields, TranscriptionOptions, SummaryOptions, checks=CHECKS)


def request_body() -> dict[str, Any]:
    """Describe the body for OpenAPI. It is parsed by hand as it streams in, so FastAPI can't derive the description."""
    properties = TASK_FORM.properties()
    file = {"type": "string", "format": "binary", "description": "The recording. The part may also be named `file`."}
    return {
        "required": False,
        "content": {
            "multipart/form-data": {"schema": {"type": "object", "properties": {"file_upload": file, **properties}}},
            "application/x-www-form-urlencoded": {"schema": {"type": "object", "properties": properties}},
        },
    }
