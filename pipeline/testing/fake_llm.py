"""A language model that repeats its material, controlled by the test."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from typing_extensions import override

from pipeline.domain.summaries.prompts import Prompt
from pipeline.domain.summaries.summary import Chapter, StructuredSummary, TokenUsage
from pipeline.domain.summaries.transcript_pieces import seconds_of
from pipeline.errors import (
    LlmAnswerUnusable,
    LlmContextExceeded,
    LlmKeyRefused,
    LlmRateLimited,
    LlmRefused,
    LlmTimeout,
    LlmUnreachable,
    MurmurationError,
)
from pipeline.ports import LanguageModel, LanguageModels, LlmCompletion

_LINE = re.compile(r"^\[(\d\d:\d\d:\d\d)\] (.*)$", re.MULTILINE)

FAILURES_BY_NAME: Mapping[str, MurmurationError] = {
    "refuses-key": LlmKeyRefused("The language model's server does not accept the API key."),
    "unknown-model": LlmRefused("The language model's server does not know the model."),
    "no-credit": LlmRefused("The account of the API key has no credit left."),
    "rate-limited": LlmRateLimited("The language model's server accepts no more requests for now.", 7),
    "fails": LlmUnreachable("The language model's server failed."),
    "silent": LlmTimeout("The language model's server did not respond in time."),
    "garbage": LlmAnswerUnusable("The language model's server sent a response that is not JSON."),
    "empty": LlmAnswerUnusable("The language model's answer is empty."),
    "too-long": LlmContextExceeded("The transcript is longer than the context of the language model."),
}
"""Errors that models of these names raise for every prompt."""


@dataclass(slots=True)
class FakeLanguageModels(LanguageModels):
    """``LanguageModels`` that count one token a word.

    Attributes:
        opened: opened models, as (model, key).
        prompts: all prompts, in order.
        context_tokens: maximum length of a prompt; longer ones raise ``LlmContextExceeded``.
        notes: makes the notes on one part of a transcript; by default its first line.
    """

    opened: list[tuple[str, str | None]] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    context_tokens: int | None = None
    notes: Callable[[Prompt], str] = lambda prompt: prompt.material.splitlines()[1]

    @override
    def open(self, model: str, api_key: str | None) -> FakeLanguageModel:
        self.opened.append((model, api_key))
        return FakeLanguageModel(self, model)


@dataclass(frozen=True, slots=True)
class FakeLanguageModel(LanguageModel):
    """A ``LanguageModel`` whose name selects its failure."""

    owner: FakeLanguageModels
    name: str

    @override
    def count_tokens(self, text: str) -> int:
        """Count the words."""
        return len(text.split())

    @override
    async def text(self, prompt: Prompt) -> LlmCompletion[str]:
        """Return the last line of the material."""
        usage = await self._ask(prompt)
        if self.name == "cut-off":
            raise LlmAnswerUnusable("The language model's answer was cut off.")
        return LlmCompletion(f"It was said: {prompt.material.splitlines()[-2]}", self.name, "fake-1", usage)

    @override
    async def notes(self, prompt: Prompt) -> LlmCompletion[str]:
        """Return the result of ``FakeLanguageModels.notes``."""
        usage = await self._ask(prompt)
        return LlmCompletion(self.owner.notes(prompt), self.name, "fake-1", usage)

    @override
    async def structured(self, prompt: Prompt, end_s: float) -> LlmCompletion[StructuredSummary]:
        """Return a chapter for each line."""
        usage = await self._ask(prompt)
        if self.name == "wrong-form":
            raise LlmAnswerUnusable("The language model's answer did not have the requested form.")
        chapters = tuple(Chapter(seconds_of(time), line, "") for time, line in _LINE.findall(prompt.material))
        return LlmCompletion(
            StructuredSummary("Title", "In short.", chapters, (), ("word",)), self.name, "fake-1", usage
        )

    async def _ask(self, prompt: Prompt) -> TokenUsage:
        self.owner.prompts.append(prompt)
        await asyncio.sleep(0)
        if self.name in FAILURES_BY_NAME:
            raise FAILURES_BY_NAME[self.name]
        tokens = self.count_tokens(str(prompt))
        if self.owner.context_tokens is not None and tokens > self.owner.context_tokens:
            raise FAILURES_BY_NAME["too-long"]
        return TokenUsage(1, tokens, 5)
