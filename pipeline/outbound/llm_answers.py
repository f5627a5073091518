"""Reads and validates the untrusted answers of a language model."""

from __future__ import annotations

import re
from typing import Annotated, Any

from openai.types.chat import ChatCompletion
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator

from pipeline.domain.summaries.summary import Chapter, StructuredSummary, TokenUsage
from pipeline.domain.summaries.transcript_pieces import clock_time, seconds_of
from pipeline.errors import LlmAnswerUnusable

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
"""The reasoning that some models write before their answer."""

_OBJECT = re.compile(r"\{.*\}", re.DOTALL)
"""The JSON object in an answer, which may have other text or a Markdown fence around it."""


def content_of(completion: ChatCompletion) -> tuple[str, bool]:
    """Return the text, and whether it was cut off at the length limit.

    Raises:
        LlmAnswerUnusable: this is not a chat completion, the model refused, or the text is empty.
    """
    if not isinstance(completion, ChatCompletion) or not completion.choices or not completion.choices[0].message:
        raise LlmAnswerUnusable("The language model's server answered with something that is not a chat completion.")
    choice = completion.choices[0]
    cut_off = choice.finish_reason == "length"
    if choice.finish_reason == "content_filter" or getattr(choice.message, "refusal", None):
        raise LlmAnswerUnusable("The language model refused to summarise this recording.")
    text = choice.message.content
    text = _THOUGHT.sub("", text).strip() if isinstance(text, str) else ""
    if not text and cut_off:
        raise cut_off_error()
    if not text:
        raise LlmAnswerUnusable("The language model's answer is empty.")
    return text, cut_off


def cut_off_error() -> LlmAnswerUnusable:
    """Return the error for an answer that is longer than allowed."""
    return LlmAnswerUnusable("The language model's answer was cut off: the operator can raise llm.max_output_tokens.")


def usage_of(completion: ChatCompletion) -> TokenUsage:
    """Return the tokens of one call; ``None`` for a count that the server does not send as a number."""
    usage = completion.usage
    sent, written = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    return TokenUsage(1, sent if isinstance(sent, int) else None, written if isinstance(written, int) else None)


# --- structured output ------------------------------------------------------------------------------------------------


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("This must not be empty")
    return text.strip()


def _number_to_text(value: object) -> object:
    return clock_time(value) if isinstance(value, int | float) and 0 <= value < 1e6 else value


NonBlankText = Annotated[str, AfterValidator(_not_blank)]


class StrictSchema(BaseModel):
    """A schema in which every field is required and no others are allowed, as strict modes demand."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})


class ChapterAnswer(StrictSchema):
    """A chapter in a model's answer; ``start`` is ``HH:MM:SS``."""

    start: Annotated[str, BeforeValidator(_number_to_text)]
    title: NonBlankText
    summary: str

    @field_validator("start")
    @classmethod
    def _within(cls, start: str, info: ValidationInfo) -> str:
        end_s = info.context["end_s"] if info.context else float("inf")
        if seconds_of(start) > end_s:
            raise ValueError(f"The recording ends at {clock_time(end_s)}")
        return start


class SummaryAnswer(StrictSchema):
    """A structured summary in a model's answer."""

    title: NonBlankText
    summary: NonBlankText
    chapters: list[ChapterAnswer]
    action_items: list[str]
    keywords: list[str]


def structured_of(text: str, end_s: float) -> StructuredSummary:
    """Return the structured summary in an answer.

    Args:
        text: the answer.
        end_s: end of the recording in seconds; no chapter may start later.

    Raises:
        pydantic.ValidationError: the answer does not fit the schema.
    """
    match = _OBJECT.search(text)
    answer = SummaryAnswer.model_validate_json(match[0] if match else text, context={"end_s": end_s})
    return StructuredSummary(
        title=answer.title,
        summary=answer.summary,
        chapters=tuple(Chapter(seconds_of(each.start), each.title, each.summary.strip()) for each in answer.chapters),
        action_items=_without_blanks(answer.action_items),
        keywords=_without_blanks(answer.keywords),
    )


def answer_schema() -> dict[str, Any]:
    """Return the JSON schema of a structured summary."""
    return SummaryAnswer.model_json_schema()


def _without_blanks(texts: list[str]) -> tuple[str, ...]:
    return tuple(text.strip() for text in texts if text.strip())
