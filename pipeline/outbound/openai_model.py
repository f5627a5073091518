"""Calls language models of any OpenAI-compatible server through OpenAI's official client.

The operator chooses the server, so requests to it do not pass the guard. The text of the server's errors may repeat a
key. It is therefore neither passed on nor logged; the status and the error code are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any

import openai
from openai import AsyncOpenAI, Timeout
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from pydantic import ValidationError
from typing_extensions import override

from pipeline.domain.summaries.prompts import Prompt
from pipeline.domain.summaries.summary import StructuredSummary, TokenUsage
from pipeline.errors import (
    LlmAnswerUnusable,
    LlmContextExceeded,
    LlmError,
    LlmKeyRefused,
    LlmRateLimited,
    LlmRefused,
    LlmTimeout,
    LlmUnreachable,
    Unavailable,
)
from pipeline.outbound.llm_answers import answer_schema, content_of, cut_off_error, structured_of, usage_of
from pipeline.outbound.token_count import token_counter
from pipeline.outbound.webhook_sender import retry_after_s
from pipeline.ports import Clock, LanguageModel, LanguageModels, LlmCompletion, Metrics
from pipeline.settings import LlmSettings

OPENAI_URL = "https://api.openai.com/v1"
CONNECT_TIMEOUT_S = 10.0
"""Seconds to connect to the server, after which it counts as unreachable."""

NO_KEY = "none"
"""The key sent to a server that needs none, because the client library requires one."""

DEFAULT_WAIT_S = 30
MAX_WAIT_S = 3600.0
NAMED_PROBLEMS = 10
"""Most flaws of an answer that the prompt for its repair lists."""

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TOO_LONG = re.compile(
    r"context.?(length|size|window)|exceed_context|too many tokens|prompt is too long", re.IGNORECASE
)


class OpenAiModels(LanguageModels):
    """The language models of one server.

    Args:
        settings: the server's address and key, its limits, and the form of its answers.
        clock: for dates in ``Retry-After``.
        metrics: count tokens and their cost.
    """

    def __init__(self, settings: LlmSettings, clock: Clock, metrics: Metrics) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._client = AsyncOpenAI(
            base_url=settings.base_url or OPENAI_URL,
            api_key=settings.api_key.get_secret_value() if settings.api_key else NO_KEY,
            timeout=Timeout(settings.timeout_s, connect=min(CONNECT_TIMEOUT_S, settings.timeout_s)),
            max_retries=settings.max_retries,
        )

    @override
    def open(self, model: str, api_key: str | None) -> OpenAiModel:
        """Return the model; all models share the connections, but not the key."""
        client = self._client.with_options(api_key=api_key) if api_key else self._client
        return OpenAiModel(client, model, self._settings, self._clock, self._metrics)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class OpenAiModel(LanguageModel):
    """A language model behind the chat completions API."""

    def __init__(self, client: AsyncOpenAI, model: str, settings: LlmSettings, clock: Clock, metrics: Metrics) -> None:
        self._client = client
        self._model = model
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._count = token_counter(model)

    @override
    def count_tokens(self, text: str) -> int:
        return self._count(text)

    @override
    async def text(self, prompt: Prompt) -> LlmCompletion[str]:
        text, cut_off, completion = await self._complete(_messages(prompt))
        if cut_off:
            raise cut_off_error()
        return LlmCompletion(text, completion.model, completion.id or "", usage_of(completion))

    @override
    async def notes(self, prompt: Prompt) -> LlmCompletion[str]:
        text, _, completion = await self._complete(_messages(prompt))
        return LlmCompletion(text, completion.model, completion.id or "", usage_of(completion))

    @override
    async def structured(self, prompt: Prompt, end_s: float) -> LlmCompletion[StructuredSummary]:
        """Write a structured summary. An answer with flaws is sent back to the model once, with a list of them.

        Raises:
            LlmAnswerUnusable: the answer is cut off, or its repair has flaws too.
        """
        messages, usage = _messages(prompt), TokenUsage()
        for _ in range(2):
            text, cut_off, completion = await self._complete(messages, **self._response_format())
            if cut_off:
                raise cut_off_error()
            usage += usage_of(completion)
            try:
                return LlmCompletion(structured_of(text, end_s), completion.model, completion.id or "", usage)
            except ValidationError as error:
                messages = [*messages, *_repair_messages(text, error)]
        raise LlmAnswerUnusable("The language model's answer did not have the requested form, even when asked again.")

    async def _complete(
        self, messages: Sequence[ChatCompletionMessageParam], **form: Any
    ) -> tuple[str, bool, ChatCompletion]:
        with self._translate_llm_errors():
            completion = await self._client.chat.completions.create(
                model=self._model, messages=messages, **self._limits(), **form
            )
        if isinstance(completion, ChatCompletion):
            self._record_usage(usage_of(completion))  # a useless answer costs tokens too
        text, cut_off = content_of(completion)
        return text, cut_off, completion

    def _limits(self) -> dict[str, Any]:
        """Return the limits of a call.

        OpenAI's newer models accept only the newer name of the token limit, many other servers only the older one.
        """
        name = "max_tokens" if self._settings.base_url else "max_completion_tokens"
        limits: dict[str, Any] = {name: self._settings.max_output_tokens}
        if self._settings.temperature is not None:
            limits["temperature"] = self._settings.temperature
        return limits

    def _response_format(self) -> dict[str, Any]:
        match self._settings.structured_output:
            case "json_schema":
                schema = {"name": "summary", "strict": True, "schema": answer_schema()}
                return {"response_format": {"type": "json_schema", "json_schema": schema}}
            case "json_object":
                return {"response_format": {"type": "json_object"}}
            case "prompt":
                return {}

    def _record_usage(self, usage: TokenUsage) -> None:
        self._metrics.count("llm_tokens", usage.input_tokens or 0, direction="in")
        self._metrics.count("llm_tokens", usage.output_tokens or 0, direction="out")
        price = self._settings.prices.get(self._model)
        if price is not None:
            cost = usage.cost(price.input_per_million, price.output_per_million)
            self._metrics.count("llm_cost", cost or 0.0)

    @contextmanager
    def _translate_llm_errors(self) -> Iterator[None]:
        """Translate failures of the server to the service's errors, without the cause, whose text may repeat a key."""
        try:
            yield
        except openai.APITimeoutError:
            raise LlmTimeout(
                f"The language model's server sent nothing for more than {self._settings.timeout_s:g} s."
            ) from None
        except openai.APIConnectionError:
            raise LlmUnreachable("The language model's server can't be reached.") from None
        except openai.APIStatusError as error:
            raise self._to_own_error(error) from None
        except (openai.OpenAIError, ValueError):
            raise LlmAnswerUnusable("The language model's server sent an answer that is not JSON.") from None

    def _to_own_error(self, error: openai.APIStatusError) -> LlmError | Unavailable:
        status = f"{error.status_code}{_code_of(error)}"
        match error.status_code:
            case 401 | 403:
                return LlmKeyRefused(f"The language model's server does not accept the API key (it answered {status}).")
            case 429 if error.code == "insufficient_quota":
                return LlmRefused(f"The account of the API key has no credit left (the server answered {status}).")
            case 429:
                return LlmRateLimited(
                    "The language model's server accepts no more requests for now.", self._wait_s(error)
                )
            case 408 | 504:
                return LlmTimeout(f"The language model took too long for its server (it answered {status}).")
            case code if code >= 500:
                return LlmUnreachable(f"The language model's server failed (it answered {status}).")
            case _ if _is_too_long(error):
                return LlmContextExceeded("The transcript is longer than the context of the language model.")
            case 404:
                return LlmRefused(
                    f"The language model's server does not know the model {self._model[:100]!a} (it answered {status})."
                )
            case _:
                return LlmRefused(f"The language model's server does not accept the request (it answered {status}).")

    def _wait_s(self, error: openai.APIStatusError) -> int:
        retry_after = retry_after_s(error.response.headers.get("retry-after", ""), self._clock.now())
        return ceil(min(retry_after, MAX_WAIT_S)) if retry_after else DEFAULT_WAIT_S


def _messages(prompt: Prompt) -> list[ChatCompletionMessageParam]:
    return [{"role": "system", "content": prompt.instructions}, {"role": "user", "content": prompt.material}]


def _repair_messages(text: str, error: ValidationError) -> list[ChatCompletionMessageParam]:
    flaws = error.errors(include_url=False, include_context=False, include_input=False)[:NAMED_PROBLEMS]
    named = "\n".join(f"- {'.'.join(map(str, flaw['loc'])) or 'the answer'}: {flaw['msg']}" for flaw in flaws)
    return [
        {"role": "assistant", "content": text},
        {"role": "user", "content": f"That is not what was asked for:\n{named}\nWrite the whole JSON object again."},
    ]


def _code_of(error: openai.APIStatusError) -> str:
    """Return the server's code of the error if it looks like a code, with a comma before it; else an empty text."""
    return f", {error.code}" if error.code and _CODE.fullmatch(error.code) and not error.code.isdecimal() else ""


def _is_too_long(error: openai.APIStatusError) -> bool:
    return error.status_code == 413 or _TOO_LONG.search(f"{error.code} {error.type} {error.body}") is not None
