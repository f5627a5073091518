"""Tests the client of language models over real sockets; the name of each model tells its behaviour."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import tiktoken

from pipeline.domain.summaries.prompts import final_prompt
from pipeline.domain.summaries.summary import SummaryFormat, SummaryOptions, TokenUsage
from pipeline.domain.summaries.transcript_pieces import estimate_tokens
from pipeline.errors import (
    LlmAnswerUnusable,
    LlmKeyRefused,
    LlmRateLimited,
    LlmRefused,
    LlmUnreachable,
    MurmurationError,
)
from pipeline.outbound import token_count
from pipeline.outbound.openai_model import OpenAiModels
from pipeline.outbound.token_count import token_counter
from pipeline.ports import NullMetrics
from pipeline.settings import LlmPrice, LlmSettings
from pipeline.system_clock import SystemClock
from pipeline.testing.recording_metrics import RecordingMetrics
from tests.standins.llm import KEY, LlmServer, llm_server

LINES = ("[00:00:01] Good morning everybody.", "[00:01:30] We need to talk about the budget.")
PROSE = final_prompt(LINES, SummaryOptions(), "en", from_notes=False)
PARTS = final_prompt(LINES, SummaryOptions(summary_format=SummaryFormat.STRUCTURED), "en", from_notes=False)


@asynccontextmanager
async def server_and_models(
    *, key: str | None = None, metrics: Any = None, **settings: Any
) -> AsyncIterator[tuple[LlmServer, OpenAiModels]]:
    async with llm_server(key) as server:
        given = {"base_url": server.base_url, "max_retries": 0, "timeout_s": 5.0} | settings
        models = OpenAiModels(LlmSettings(**given), SystemClock(), metrics or NullMetrics())
        yield server, models
        await models.close()


@pytest.fixture
async def models() -> AsyncIterator[OpenAiModels]:
    async with server_and_models() as (_, opened):
        yield opened


# --- what is sent -----------------------------------------------------------------------------------------------------


async def test_a_call_says_what_is_configured_and_no_more() -> None:
    async with server_and_models(max_output_tokens=300) as (server, models):
        await models.open("any", None).text(PROSE)

    [body] = server.seen
    assert body == {
        "model": "any",
        "max_tokens": 300,
        "messages": [
            {"role": "system", "content": PROSE.instructions},
            {"role": "user", "content": PROSE.material},
        ],
    }


async def test_a_temperature_is_sent_if_there_is_one() -> None:
    async with server_and_models(temperature=0.0) as (server, models):
        await models.open("any", None).text(PROSE)

    assert server.seen[0]["temperature"] == 0.0


@pytest.mark.parametrize(("structured", "kind"), [("json_schema",) * 2, ("json_object",) * 2, ("prompt", None)])
async def test_a_form_is_asked_for_as_the_server_understands_it(structured: str, kind: str | None) -> None:
    async with server_and_models(structured_output=structured) as (server, models):
        await models.open("any", None).structured(PARTS, 100.0)

    form = server.seen[0].get("response_format", {})
    assert form.get("type") == kind
    if kind == "json_schema":
        schema = form["json_schema"]["schema"]
        assert form["json_schema"]["strict"] is True
        assert (schema["additionalProperties"], set(schema["required"])) == (False, set(schema["properties"]))


async def test_the_key_is_the_configured_one_or_the_client_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    async with server_and_models(key=KEY, api_key=KEY) as (_, models):
        assert (await models.open("any", None).text(PROSE)).content
        with pytest.raises(LlmKeyRefused):
            await models.open("any", "sk-another-0123456789").text(PROSE)
        assert (await models.open("any", None).text(PROSE)).content
    async with server_and_models() as (server, models):
        await models.open("any", None).text(PROSE)
    assert server.receiver.requests[0].headers["authorization"] == "Bearer none"


# --- what comes back --------------------------------------------------------------------------------------------------


async def test_what_a_model_thinks_aloud_is_left_out(models: OpenAiModels) -> None:
    assert (await models.open("thinks", None).text(PROSE)).content.startswith("The recording begins so:")


async def test_a_fence_around_json_is_taken_off(models: OpenAiModels) -> None:
    assert (await models.open("fences", None).structured(PARTS, 100.0)).content.title == "Good morning everybody."


async def test_an_action_item_is_found(models: OpenAiModels) -> None:
    content = (await models.open("any", None).structured(PARTS, 100.0)).content
    assert content.action_items == ("We need to talk about the budget.",)


async def test_a_server_that_does_not_count_leaves_the_usage_open(models: OpenAiModels) -> None:
    assert (await models.open("uncounted", None).text(PROSE)).usage == TokenUsage(1, None, None)


@pytest.mark.parametrize(
    ("model", "named"), [("wrong-form-once", "summary: Field required"), ("late-chapter-once", "ends at 00:01:40")]
)
async def test_a_flawed_form_is_sent_back_once_with_its_flaws(model: str, named: str) -> None:
    async with server_and_models() as (server, models):
        written = await models.open(model, None).structured(PARTS, 100.0)

    first, repair = server.seen
    assert repair["messages"][:2] == first["messages"]
    assert [message["role"] for message in repair["messages"]] == ["system", "user", "assistant", "user"]
    assert named in repair["messages"][3]["content"]
    assert written.usage.calls == 2
    assert [chapter.start for chapter in written.content.chapters] == [1.0, 90.0]


async def test_a_form_that_stays_flawed_is_given_up() -> None:
    async with server_and_models() as (server, models):
        with pytest.raises(LlmAnswerUnusable, match="asked again"):
            await models.open("wrong-form", None).structured(PARTS, 100.0)
    assert len(server.seen) == 2


async def test_a_form_that_is_cut_off_is_not_asked_for_again() -> None:
    async with server_and_models() as (server, models):
        with pytest.raises(LlmAnswerUnusable, match=r"llm\.max_output_tokens"):
            await models.open("cut-off", None).structured(PARTS, 100.0)
    assert len(server.seen) == 1


@pytest.mark.parametrize("model", ["garbage", "garbage-page", "other-json", "no-choices", "empty"])
async def test_what_is_no_answer_is_not_taken_for_one(models: OpenAiModels, model: str) -> None:
    for call in (models.open(model, None).text, models.open(model, None).notes):
        with pytest.raises(LlmAnswerUnusable):
            await call(PROSE)


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        ("refuses-key", LlmKeyRefused, "401, invalid_api_key"),
        ("no-access", LlmKeyRefused, "403"),
        ("no-credit", LlmRefused, "no credit"),
        ("unknown-model", LlmRefused, "'unknown-model'"),
        ("odd", LlmRefused, r"answered 422\)"),
        ("fails", LlmUnreachable, "500"),
    ],
)
async def test_an_error_is_told_without_the_server_s_words(
    models: OpenAiModels, model: str, error: type[MurmurationError], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "pipeline"), pytest.raises(error, match=said) as caught:
        await models.open(model, KEY).text(PROSE)

    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert KEY not in str(caught.value) + caplog.text
    assert "/srv/secret" not in str(caught.value)


async def test_nobody_at_home() -> None:
    async with llm_server() as gone:
        settings = LlmSettings(base_url=gone.base_url, max_retries=0)
    models = OpenAiModels(settings, SystemClock(), NullMetrics())

    with pytest.raises(LlmUnreachable, match="can't be reached"):
        await models.open("any", None).text(PROSE)
    await models.close()


# --- trying again -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["fails-once", "rate-limited-once"])
async def test_the_client_tries_again_by_itself(model: str) -> None:
    async with server_and_models(max_retries=1) as (server, models):
        written = await models.open(model, None).text(PROSE)

    assert written.content
    assert len(server.seen) == 2


async def test_a_long_wait_is_not_sat_out_but_told() -> None:
    """Check that the client obeys a ``Retry-After`` of up to two minutes; the queue waits for a longer one."""
    async with server_and_models(max_retries=2) as (server, models):
        with pytest.raises(LlmRateLimited) as caught:
            await models.open("rate-limited-long", None).text(PROSE)

    assert caught.value.retry_after_s == 300
    assert len(server.seen) == 1


# --- figures ----------------------------------------------------------------------------------------------------------


async def test_tokens_and_cost_are_counted_call_by_call() -> None:
    metrics = RecordingMetrics()
    price = LlmPrice(input_per_million=1_000_000, output_per_million=2_000_000)
    async with server_and_models(metrics=metrics, prices={"any": price}) as (_, models):
        first = (await models.open("any", None).text(PROSE)).usage
        await models.open("free", None).text(PROSE)

    assert first.input_tokens is not None
    assert first.output_tokens is not None
    assert metrics.total("llm_tokens", direction="in") == 2 * first.input_tokens
    assert metrics.total("llm_cost") == first.input_tokens + 2 * first.output_tokens


async def test_tokens_of_an_answer_that_is_of_no_use_are_counted_too() -> None:
    metrics = RecordingMetrics()
    async with server_and_models(metrics=metrics) as (_, models):
        for model in ("cut-off", "garbage"):
            with pytest.raises(LlmAnswerUnusable):
                await models.open(model, None).text(PROSE)

    assert metrics.total("llm_tokens", direction="out") == len(["They", "met", "and"])


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_tokenizer_that_is_not_at_hand_is_not_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tiktoken, "get_encoding", _must_not_be_called)
    for folder in (None, str(tmp_path)):
        if folder is None:
            monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
        else:
            monkeypatch.setenv("TIKTOKEN_CACHE_DIR", folder)
        for model in ("gpt-4o-mini", "llama3.1:8b"):
            assert token_counter(model) is estimate_tokens


def test_a_tokenizer_that_is_at_hand_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    token_count._cached_file("o200k_base").write_bytes(b"")
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
    tiny = tiktoken.Encoding("tiny", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={"<|end|>": 257})
    asked: list[str] = []
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: asked.append(name) or tiny)

    count = token_counter("gpt-4o-mini")

    assert (count("abab c"), count("<|end|>"), asked) == (4, 7, ["o200k_base"])
    assert token_counter("llama3.1:8b") is estimate_tokens


def _must_not_be_called(name: str) -> Any:
    raise AssertionError(name)
