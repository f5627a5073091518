"""The language model behind a server, over real sockets, and its fake mean the same by the same names of models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from pipeline.domain.summaries.prompts import Prompt, final_prompt, notes_prompt
from pipeline.domain.summaries.summary import SummaryFormat, SummaryOptions
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
from pipeline.outbound.openai_model import OpenAiModels
from pipeline.ports import LanguageModels, NullMetrics
from pipeline.settings import LlmSettings
from pipeline.system_clock import SystemClock
from pipeline.testing.fake_llm import FakeLanguageModels
from tests.standins.llm import llm_server

LINES = ("[00:00:01] Good morning everybody.", "[00:01:30] We need to talk about the budget.")
TEXT = SummaryOptions()
PARTS = SummaryOptions(summary_format=SummaryFormat.STRUCTURED)

Opener = Callable[[], AbstractAsyncContextManager[LanguageModels]]


@asynccontextmanager
async def over_sockets() -> AsyncIterator[LanguageModels]:
    async with llm_server() as server:
        settings = LlmSettings(base_url=server.base_url, max_retries=0, timeout_s=0.5)
        models = OpenAiModels(settings, SystemClock(), NullMetrics())
        yield models
        await models.close()


@asynccontextmanager
async def in_memory() -> AsyncIterator[LanguageModels]:
    yield FakeLanguageModels()


@pytest.fixture(params=[over_sockets, in_memory])
async def models(request: pytest.FixtureRequest) -> AsyncIterator[LanguageModels]:
    opener: Opener = request.param
    async with opener() as opened:
        yield opened


def prompt(options: SummaryOptions = TEXT) -> Prompt:
    return final_prompt(LINES, options, "en", from_notes=False)


async def test_prose_is_told_with_what_it_took(models: LanguageModels) -> None:
    written = await models.open("proper", None).text(prompt())

    assert "[00:01:30]" in written.content
    assert (written.model, written.usage.calls) == ("proper", 1)
    assert written.completion_id
    assert written.usage.input_tokens
    assert written.usage.output_tokens


async def test_notes_may_be_cut_off_and_a_summary_may_not(models: LanguageModels) -> None:
    model = models.open("cut-off", None)

    assert (await model.notes(notes_prompt(LINES, TEXT, 1, 2, from_notes=False))).content
    with pytest.raises(LlmAnswerUnusable, match="cut off"):
        await model.text(prompt())


async def test_a_summary_in_parts(models: LanguageModels) -> None:
    written = await models.open("proper", None).structured(prompt(PARTS), 100.0)

    assert [chapter.start for chapter in written.content.chapters] == [1.0, 90.0]
    assert written.content.title
    assert written.content.keywords
    assert written.usage.calls == 1


async def test_a_form_that_cannot_be_had(models: LanguageModels) -> None:
    with pytest.raises(LlmAnswerUnusable, match="form"):
        await models.open("wrong-form", None).structured(prompt(PARTS), 100.0)


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("refuses-key", LlmKeyRefused),
        ("unknown-model", LlmRefused),
        ("no-credit", LlmRefused),
        ("rate-limited", LlmRateLimited),
        ("fails", LlmUnreachable),
        ("silent", LlmTimeout),
        ("garbage", LlmAnswerUnusable),
        ("empty", LlmAnswerUnusable),
        ("too-long", LlmContextExceeded),
    ],
)
async def test_a_failure_has_its_name(models: LanguageModels, model: str, error: type[MurmurationError]) -> None:
    opened = models.open(model, None)

    for call in (opened.text(prompt()), opened.notes(prompt()), opened.structured(prompt(PARTS), 100.0)):
        with pytest.raises(error) as caught:
            await call
        assert type(caught.value) is error


async def test_a_server_that_asks_for_patience_says_for_how_long(models: LanguageModels) -> None:
    with pytest.raises(LlmRateLimited) as caught:
        await models.open("rate-limited", None).text(prompt())
    assert caught.value.retry_after_s == 7


async def test_tokens_are_counted(models: LanguageModels) -> None:
    model = models.open("proper", None)

    assert model.count_tokens("") == 0
    assert model.count_tokens("one two three") < model.count_tokens("one two three " * 10)
