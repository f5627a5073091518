"""Writing the summary of a stored transcript.

A transcript that fits the model's context is summarised in one call. A longer one is cut into pieces; the model takes
notes of each, and the summary is written from the notes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from typing_extensions import override

from pipeline.domain.decoding.transcript import Transcript
from pipeline.domain.summaries.prompts import Prompt, final_prompt, notes_prompt
from pipeline.domain.summaries.summary import StructuredSummary, Summary, SummaryFormat, SummaryOptions, TokenUsage
from pipeline.domain.summaries.transcript_pieces import TimedLine, align_chapters, clock_time, pieces, timed_lines
from pipeline.domain.tasks.task import Task
from pipeline.errors import (
    InvalidValue,
    LlmAnswerUnusable,
    LlmContextExceeded,
    LlmNotConfigured,
    LlmTimeout,
    NothingSaid,
    TaskNotFinished,
)
from pipeline.ports import Clock, LanguageModel, LanguageModels, LlmCompletion, Summarizer, SummaryJob, TaskStore
from pipeline.settings import LlmSettings

T = TypeVar("T")

OPENAI_MODEL = "gpt-4o-mini"
"""The model used at OpenAI if neither the settings nor the request name one."""

MAX_HALVINGS = 4
"""How often the size of the pieces is halved for a server whose context is smaller than the settings say."""

FRAME_TOKENS = 100
"""Tokens that the chat format may add to the instructions and the text."""


def chosen_model(settings: LlmSettings, named: str | None, *, own_key: bool) -> str:
    """Return the name of the model that writes a summary.

    Args:
        settings: the server, its key and its models.
        named: the model that the request names, or ``None``.
        own_key: the request has an API key of its own.

    Raises:
        LlmNotConfigured: a setting is missing.
        InvalidValue: the settings do not allow the named model.
    """
    if not (settings.base_url or settings.api_key or own_key):
        raise LlmNotConfigured(
            "No language model is configured: set llm.api_key (MURMURATION_LLM__API_KEY) for OpenAI, or "
            "llm.base_url (MURMURATION_LLM__BASE_URL) for another server.",
            retry_after_s=60,
        )
    if named and not own_key and settings.allowed_models and named not in {settings.model, *settings.allowed_models}:
        raise InvalidValue(
            f"The model {named[:50]!a} is not available here: use {', '.join(settings.allowed_models)}.",
            "summary_model",
        )
    model = named or settings.model or (None if settings.base_url else OPENAI_MODEL)
    if model is None:
        raise LlmNotConfigured(
            "No language model is named: set llm.model (MURMURATION_LLM__MODEL), or name one in the request.",
            retry_after_s=60,
        )
    return model


class TranscriptSummarizer(Summarizer):
    """A ``Summarizer`` that reads transcripts from the task store and sends them to a language model.

    Args:
        store: holds the transcripts.
        models: opens the language models.
        settings: limits and prices.
        clock: gives the summary its date.
    """

    def __init__(self, store: TaskStore, models: LanguageModels, settings: LlmSettings, clock: Clock) -> None:
        self._store = store
        self._models = models
        self._settings = settings
        self._clock = clock

    @override
    async def summarize(self, order: SummaryJob) -> Summary:
        name = chosen_model(self._settings, order.options.summary_model, own_key=order.api_key is not None)
        task = await self._store.get(order.task_id, include_result=True)
        lines = timed_lines(_transcript(task).segments)
        if not lines:
            raise NothingSaid("There is nothing to summarise: the recording holds no speech.")
        draft = _SummaryDraft(
            self._models.open(name, order.api_key), self._settings, order.options, lines, _language(task, order.options)
        )
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                completion = await draft.write()
        except TimeoutError as error:
            raise LlmTimeout(f"The summary took longer than {self._settings.deadline_s:g} s.") from error
        return self._summary(completion, draft, name)

    def _summary(
        self, completion: LlmCompletion[str] | LlmCompletion[StructuredSummary], draft: _SummaryDraft, name: str
    ) -> Summary:
        content = completion.content
        price = self._settings.prices.get(name)
        return Summary(
            text=content if isinstance(content, str) else _prose(content),
            language=draft.language,
            model=completion.model or name,
            created_at=self._clock.now(),
            completion_id=completion.completion_id,
            parts=None if isinstance(content, str) else content,
            usage=draft.usage,
            cost=draft.usage.cost(price.input_per_million, price.output_per_million) if price else None,
        )


class _SummaryDraft:
    """A summary that is being written; ``usage`` sums the tokens of all calls so far."""

    def __init__(
        self,
        model: LanguageModel,
        settings: LlmSettings,
        options: SummaryOptions,
        lines: Sequence[TimedLine],
        language: str,
    ) -> None:
        self.usage = TokenUsage()
        self.language = language
        self._model = model
        self._settings = settings
        self._options = options
        self._lines = lines
        self._slots = asyncio.Semaphore(settings.concurrency)

    async def write(self) -> LlmCompletion[str] | LlmCompletion[StructuredSummary]:
        """Return the summary. Retry with smaller pieces if the model's context is smaller than the settings say."""
        budget = self._budget()
        for _ in range(MAX_HALVINGS):
            try:
                return await self._write_within(budget)
            except LlmContextExceeded:
                budget //= 2
        return await self._write_within(budget)

    def _budget(self) -> int:
        """Return the number of tokens that one call has for text."""
        longest = notes_prompt((), self._options, 99, 99, from_notes=True)
        final = final_prompt((), self._options, self.language, from_notes=True)
        instructions = max(self._model.count_tokens(str(prompt)) for prompt in (longest, final))
        budget = self._settings.context - self._settings.max_output_tokens - instructions - FRAME_TOKENS
        if budget < self._settings.max_output_tokens:
            raise InvalidValue("summary_prompt is too long for the language model.", "summary_prompt")
        return budget

    async def _write_within(self, budget: int) -> LlmCompletion[str] | LlmCompletion[StructuredSummary]:
        lines, from_notes = [str(line) for line in self._lines], False
        while len(parts := pieces(lines, budget, self._model.count_tokens)) > 1:
            notes = await self._notes(parts, from_notes=from_notes)
            if len(pieces(notes, budget, self._model.count_tokens)) >= len(parts):
                raise LlmAnswerUnusable("The language model's notes are not shorter than the text they are about.")
            lines, from_notes = notes, True
        return await self._final(final_prompt(lines, self._options, self.language, from_notes=from_notes))

    async def _notes(self, parts: Sequence[Sequence[str]], *, from_notes: bool) -> list[str]:
        prompts = [
            notes_prompt(part, self._options, number, len(parts), from_notes=from_notes)
            for number, part in enumerate(parts, 1)
        ]
        notes = await _gather_all([self._note(prompt) for prompt in prompts])
        return [line.strip() for note in notes for line in note.splitlines() if line.strip()]

    async def _note(self, prompt: Prompt) -> str:
        async with self._slots:
            completion = await self._model.notes(prompt)
        self.usage += completion.usage
        return completion.content

    async def _final(self, prompt: Prompt) -> LlmCompletion[str] | LlmCompletion[StructuredSummary]:
        if self._options.summary_format is SummaryFormat.TEXT:
            text = await self._model.text(prompt)
            self.usage += text.usage
            return text
        parts = await self._model.structured(prompt, self._lines[-1].end)
        self.usage += parts.usage
        return LlmCompletion(self._with_aligned_chapters(parts.content), parts.model, parts.completion_id, parts.usage)

    def _with_aligned_chapters(self, parts: StructuredSummary) -> StructuredSummary:
        chapters = align_chapters(parts.chapters, self._lines)
        return StructuredSummary(parts.title, parts.summary, chapters, parts.action_items, parts.keywords)


def _transcript(task: Task) -> Transcript:
    if task.result is None:
        raise TaskNotFinished(f"The task is {task.status}: it can be summarised once it has a transcript.")
    return task.result


def _language(task: Task, options: SummaryOptions) -> str:
    if options.summary_language:
        return options.summary_language
    return "en" if task.options.task_type == "translate" else task.language or "en"


def _prose(parts: StructuredSummary) -> str:
    """Return a structured summary as plain text, for clients that show only text."""
    chapters = [f"[{clock_time(each.start)}] {each.title}: {each.summary}".rstrip(": ") for each in parts.chapters]
    items = [f"- {item}" for item in parts.action_items]
    blocks = [parts.title, parts.summary, "\n".join(chapters), "\n".join(items)]
    return "\n\n".join(filter(None, blocks))


async def _gather_all(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Return all results in order; cancel the other calls at the first error."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
