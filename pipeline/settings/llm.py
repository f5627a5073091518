"""Settings of the section ``llm``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from pipeline.settings.section import Section


class LlmPrice(Section):
    """The price of a model, in any currency."""

    input_per_million: float = Field(ge=0)
    """Price of a million input tokens."""
    output_per_million: float = Field(ge=0)
    """Price of a million output tokens."""


class LlmSettings(Section):
    """The language model that writes summaries: OpenAI's, or that of any server with the same interface."""

    base_url: str | None = None
    """Address of an OpenAI-compatible server (vLLM, Ollama, llama.cpp …): `http://llm.internal:8000/v1`.
    Empty: OpenAI. The operator sets it, so the outbound guard does not check it."""
    api_key: SecretStr | None = None
    """API key of the server, a secret: `MURMURATION_LLM__API_KEY`. A server of your own may need none."""
    model: str | None = None
    """The model of requests that name none. Empty: `gpt-4o-mini` at OpenAI; a server of your own needs a name."""
    allowed_models: tuple[str, ...] = ()
    """Models that a request may name on the operator's key. Empty: any."""
    context_tokens: int | None = Field(default=None, ge=2048)
    """Context of the model, including its output. Longer transcripts are divided and summarized in steps.
    Empty: 128,000 at OpenAI, 8,192 elsewhere."""
    max_output_tokens: int = Field(default=2000, ge=128)
    """Longest output, at most a quarter of the context. A model that reasons before it answers needs more."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Temperature of the model. Empty: the server's default; some models accept no other."""
    structured_output: Literal["json_schema", "json_object", "prompt"] = "json_schema"
    """Method that makes the model write structured summaries: its server enforces a JSON schema, or any JSON, or only
    the prompt asks for the form."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Longest silence of the server within one call."""
    deadline_s: float = Field(default=900.0, gt=0)
    """Longest time for one summary, all its calls together."""
    max_retries: int = Field(default=2, ge=0, le=10)
    """Retries of one call by the client library: after 408, 409, 429, 5xx and lost connections."""
    concurrency: int = Field(default=4, ge=1)
    """Calls in progress at the same time for one long transcript."""
    max_active_summaries: int = Field(default=8, ge=1)
    """Summaries in progress in one Dispatcher; the others wait in the database. Urgent ones go first, then those of the
    client with the fewest in progress; a client that has any leaves half of the slots to others."""
    max_waited_summaries: int = Field(default=16, ge=1)
    """Summaries in progress in one Ingress replica for clients that wait for them; further requests wait for a slot. A
    client leaves half of the slots to others."""
    max_attempts: int = Field(default=5, ge=1)
    """Attempts at a task's summary, before the task is completed without one."""
    retry_base_s: float = Field(default=10.0, gt=0)
    """Upper bound of the first pause before another attempt; it doubles with each attempt."""
    prices: dict[str, LlmPrice] = Field(default={})
    """Prices by model, for the cost of each summary: `{"gpt-4o-mini": {"input_per_million": 0.15, …}}`."""

    @property
    def context(self) -> int:
        """The model's context in tokens: the configured one, else the default."""
        return self.context_tokens or (8_192 if self.base_url else 128_000)

    @model_validator(mode="after")
    def _output_fits_context(self) -> Self:
        if 4 * self.max_output_tokens > self.context:
            raise ValueError(f"max_output_tokens must be at most a quarter of the context, which is {self.context}")
        return self
