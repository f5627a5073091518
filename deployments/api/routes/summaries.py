"""Summaries of completed tasks, written while the client waits."""

from __future__ import annotations

from typing import Annotated, Literal, NoReturn

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from deployments.api.dependencies import ServicesDep
from deployments.api.request.body import RequestBody
from deployments.api.request.caller import client_name
from deployments.api.request.forms import inlined, parse_json
from deployments.api.request.lenient_values import Choice, Trimmed, is_blank, json_text
from deployments.api.response.envelope import envelope, error_responses
from deployments.api.response.request_echo import note_params
from deployments.api.response.schemas import Envelope, Schema
from deployments.api.response.task_record import SummaryBody, summary_body
from deployments.api.services import Services
from pipeline.domain.decoding.languages import parse_language
from pipeline.domain.summaries.summary import Summary, SummaryFormat, SummaryOptions
from pipeline.domain.tasks.task import Status, Task
from pipeline.errors import InvalidValue, LlmKeyRefused, TaskNotFinished
from pipeline.ports import SummaryJob
from pipeline.settings import LlmSettings
from pipeline.usecases.summaries.transcript_summarizer import chosen_model

router = APIRouter(prefix="/api/chatgpt", tags=["summary"])


def _null_is_empty(value: object) -> object:
    return "" if value is None else value


def _known_language(text: str) -> str:
    return parse_language(text) or ""


Text = Annotated[str, BeforeValidator(_null_is_empty)]


class SummaryRequest(Schema):
    """The task to summarise, and the options of the summary."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    task_id: int = Field(examples=[1])
    """A completed task."""
    chatgpt_api_key: Annotated[SecretStr, BeforeValidator(_null_is_empty), Field(max_length=500)] = SecretStr("")
    """Your own key for the language model's server. It is sent there and nowhere else. Empty: the service's key."""
    chatgpt_prompt: Annotated[Text, Field(max_length=4000)] = ""
    """Your own instructions for the summary."""
    chatgpt_model: Annotated[Text, Field(max_length=200)] = ""
    """The language model. Empty: the configured model."""
    output_language: Annotated[Text, AfterValidator(_known_language)] = "en"
    """Language of the summary: a code or a name. Empty: the language of the transcript."""
    output_format: Annotated[SummaryFormat, Choice] = SummaryFormat.TEXT
    """`text` for prose; `structured` also has a title, chapters with their starts, action items and keywords."""
    save_to_database: Annotated[bool, Trimmed] = True
    """Store the summary with the task, replacing an existing one."""

    @model_validator(mode="before")
    @classmethod
    def _blank_is_default(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        chosen = ("output_format", "save_to_database")
        return {name: value for name, value in values.items() if not (name in chosen and is_blank(value))}

    @property
    def api_key(self) -> str | None:
        """The client's own key, if it sent one."""
        return self.chatgpt_api_key.get_secret_value().strip() or None

    @property
    def options(self) -> SummaryOptions:
        """The options for the Summarizer."""
        return SummaryOptions(
            summary_prompt=self.chatgpt_prompt.strip() or None,
            summary_model=self.chatgpt_model.strip() or None,
            summary_language=self.output_language or None,
            summary_format=self.output_format,
        )


class ChatMessage(Schema):
    """The output of the language model."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(Schema):
    """The only choice."""

    index: int = 0
    message: ChatMessage
    finish_reason: Literal["stop"] = "stop"


class ChatUsage(Schema):
    """Tokens of all calls together; null if the server does not count them."""

    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None


class ChatCompletionBody(Schema):
    """The summary in the shape of OpenAI's chat completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage


class SummaryData(Schema):
    """A summary and its transcript."""

    task_text: str
    """The transcript."""
    chat_completion: ChatCompletionBody
    summary: SummaryBody


@router.post(
    "/summary",
    response_model=Envelope[SummaryData],
    responses=error_responses(400, 404, 413, 415, 422, 502, 504),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": inlined(SummaryRequest.model_json_schema())}},
        }
    },
)
async def summarize_task(request: Request, services: ServicesDep) -> Response:
    """Summarise a completed task, with times as `[HH:MM:SS]`. A long transcript is summarised in parts."""
    body = await RequestBody(request).read(services.settings.http.max_json_bytes)
    summary_request = parse_json(json_text(body), SummaryRequest)
    note_params(request, summary_request.model_dump(mode="json"))
    _check_model(summary_request, services.settings.llm)
    task = await services.store.get(summary_request.task_id)
    if task.status is not Status.COMPLETED:
        raise TaskNotFinished(f"The task is {task.status}: it can be summarised once it is completed.")
    text = await _text_of(request, services, task)
    try:
        summary = await services.summarizer.summarize(
            SummaryJob(
                task.id, task.media_prefix, summary_request.options, summary_request.api_key, client_name(request)
            )
        )
    except LlmKeyRefused as error:
        _translate_key_error(summary_request, error)
    if summary_request.save_to_database:
        await services.store.save_summary(task.id, summary)
    return envelope(request, summary_data(text, summary))


async def _text_of(request: Request, services: Services, task: Task) -> str:
    async with services.transcript_slots.hold(client_name(request)):
        task = await services.store.get(task.id, include_result=True)
    if task.result is None:
        raise TaskNotFinished(f"The task is {task.status}: it can be summarised once it is completed.")
    return task.result.text


def summary_data(transcript: str, summary: Summary) -> SummaryData:
    """Return a summary in the form that clients see."""
    return SummaryData(task_text=transcript, chat_completion=_completion(summary), summary=summary_body(summary))


def _check_model(summary_request: SummaryRequest, settings: LlmSettings) -> None:
    try:
        chosen_model(settings, summary_request.options.summary_model, own_key=summary_request.api_key is not None)
    except InvalidValue as error:
        raise InvalidValue(error.message, "chatgpt_model") from error


def _translate_key_error(summary_request: SummaryRequest, error: LlmKeyRefused) -> NoReturn:
    """Raise ``InvalidValue`` if the client sent the refused key itself, since only the client can correct it."""
    if summary_request.api_key is None:
        raise error
    raise InvalidValue(error.message, "chatgpt_api_key") from error


def _completion(summary: Summary) -> ChatCompletionBody:
    sent, wrote = summary.usage.input_tokens, summary.usage.output_tokens
    total = None if sent is None or wrote is None else sent + wrote
    return ChatCompletionBody(
        id=summary.completion_id,
        created=int(summary.created_at.timestamp()),
        model=summary.model,
        choices=[ChatChoice(message=ChatMessage(content=summary.text))],
        usage=ChatUsage(prompt_tokens=sent, completion_tokens=wrote, total_tokens=total),
    )
