"""The ports of language models, and of the summaries written with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from pipeline.domain.summaries.prompts import Prompt
from pipeline.domain.summaries.summary import StructuredSummary, Summary, SummaryOptions, TokenUsage

Answer = TypeVar("Answer", str, StructuredSummary)


@dataclass(frozen=True, slots=True)
class LlmCompletion(Generic[Answer]):
    """The answer of a language model.

    Attributes:
        content: text, or a structured summary.
        model: name of the model at its server.
        completion_id: the server's id of the call.
        usage: tokens of all calls that were needed.
    """

    content: Answer
    model: str
    completion_id: str
    usage: TokenUsage


class LanguageModel(Protocol):
    """A model of a server, called with one key.

    Errors: ``LlmError``, ``LlmRateLimited``.
    """

    def count_tokens(self, text: str) -> int:
        """Return the text's number of tokens, or an upper bound if the model's tokenizer is not installed."""
        ...

    async def text(self, prompt: Prompt) -> LlmCompletion[str]:
        """Write prose, never empty. Raises ``LlmAnswerUnusable`` if it is cut off."""
        ...

    async def notes(self, prompt: Prompt) -> LlmCompletion[str]:
        """Write prose that may be cut off."""
        ...

    async def structured(self, prompt: Prompt, end_s: float) -> LlmCompletion[StructuredSummary]:
        """Write a structured summary; no chapter begins after ``end_s``. Raises ``LlmAnswerUnusable``."""
        ...


class LanguageModels(Protocol):
    """The language models of the configured server."""

    def open(self, model: str, api_key: str | None) -> LanguageModel:
        """Return the model of that name, to be called with this key or, without one, with the configured key."""
        ...


@dataclass(frozen=True, slots=True)
class SummaryJob:
    """A summary to be written now.

    Attributes:
        task_id: the task whose transcript is summarized.
        media_prefix: where the task's recording is in the media store; it names the task's trace, too.
        options: language, length and form of the summary.
        api_key: the client's own; it goes to the language model's server and nowhere else.
        client: the client that it is written for; ``None``: no particular one.
    """

    task_id: int
    media_prefix: str
    options: SummaryOptions
    api_key: str | None = field(default=None, repr=False)
    client: str | None = None


class Summarizer(Protocol):
    """A writer of summaries of stored transcripts; in production, replicas behind one handle."""

    async def summarize(self, order: SummaryJob) -> Summary:
        """Return the summary, without storing it.

        Raises ``TaskNotFound``, ``TaskNotFinished``, ``NothingSaid``, ``LlmError``, ``LlmNotConfigured``,
        ``LlmRateLimited``, ``InvalidValue`` (a model that is not allowed), ``ReplicaLost``.
        """
        ...
