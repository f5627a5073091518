"""A language model, and the summaries made with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from pipeline.domain.summaries.prompts import Prompt
from pipeline.domain.summaries.summary import StructuredSummary, Summary, SummaryOptions, TokenUsage

Answer = TypeVar("Answer", str, StructuredSummary)


@dataclass(frozen=True, slots=True)
class LlmCompletion(Generic[Answer]):
    """What a language model wrote.

    Attributes:
        content: the text, or the parts.
        model: as its server calls it.
        completion_id: the server's name for the call.
        usage: of all calls that this took.
    """

    content: Answer
    model: str
    completion_id: str
    usage: TokenUsage


class LanguageModel(Protocol):
    """One model of one server, asked with one key.

    Errors: ``LlmError``, ``LlmRateLimited``.
    """

    def count_tokens(self, text: str) -> int:
        """How many tokens the text has, or at most has where the model's tokenizer is not at hand."""
        ...

    async def text(self, prompt: Prompt) -> LlmCompletion[str]:
        """Prose, never empty. Raises ``LlmAnswerUnusable`` where it is cut off."""
        ...

    async def notes(self, prompt: Prompt) -> LlmCompletion[str]:
        """Prose that may be cut off."""
        ...

    async def structured(self, prompt: Prompt, end_s: float) -> LlmCompletion[StructuredSummary]:
        """A summary in parts; no chapter begins after ``end_s``. ``LlmAnswerUnusable`` if it can't be had."""
        ...


class LanguageModels(Protocol):
    """The language models of the configured server."""

    def open(self, model: str, api_key: str | None) -> LanguageModel:
        """The model of that name, asked with this key, or with the configured one."""
        ...


@dataclass(frozen=True, slots=True)
class SummaryJob:
    """A summary to be written now.

    Attributes:
        task_id: whose transcript.
        media_prefix: where the task's recording is in the media store; it names the task's trace, too.
        options: what it is to be like.
        api_key: the client's own; it goes to the language model's server and nowhere else.
        client: whose it is; ``None``: nobody's in particular.
    """

    task_id: int
    media_prefix: str
    options: SummaryOptions
    api_key: str | None = field(default=None, repr=False)
    client: str | None = None


class Summarizer(Protocol):
    """Writes summaries of stored transcripts; in production replicas behind one handle."""

    async def summarize(self, order: SummaryJob) -> Summary:
        """The summary, which is not stored yet.

        Raises ``TaskNotFound``, ``TaskNotFinished``, ``NothingSaid``, ``LlmError``, ``LlmNotConfigured``,
        ``LlmRateLimited``, ``InvalidValue`` (a model that may not be named), ``ReplicaLost``.
        """
        ...
