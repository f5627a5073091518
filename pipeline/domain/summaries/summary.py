"""Summaries of transcripts: their options, their results and their status."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from annotated_types import MaxLen


class SummaryFormat(StrEnum):
    """The format: ``text`` is prose with times; ``structured`` adds title, chapters, action items and keywords."""

    TEXT = "text"
    STRUCTURED = "structured"


class SummaryStatus(StrEnum):
    """The status of a summary. ``skipped``: the task has no transcript, or was cancelled before its summary."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryOptions:
    """The options of a summary."""

    summary_prompt: Annotated[str, MaxLen(4000)] | None = None
    """Instructions for the summary, in your own words: they take precedence over the usual ones."""
    summary_model: Annotated[str, MaxLen(200)] | None = None
    """The language model. Empty: the configured one."""
    summary_language: str | None = None
    """Language of the summary: a code or a name. Empty: that of the transcript."""
    summary_format: SummaryFormat = SummaryFormat.TEXT
    """`text` for prose; `structured` for a title, chapters with their starts, action items and keywords as well."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the recording: its start in seconds, its title, and a summary."""

    start: float
    title: str
    summary: str


@dataclass(frozen=True, slots=True)
class StructuredSummary:
    """A summary with title, chapters, action items and keywords."""

    title: str
    summary: str
    chapters: tuple[Chapter, ...]
    action_items: tuple[str, ...]
    keywords: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """The calls of a language model and their tokens; ``None`` if its server does not count them."""

    calls: int = 0
    input_tokens: int | None = 0
    output_tokens: int | None = 0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        """Add calls and tokens."""
        return TokenUsage(
            self.calls + other.calls,
            _sum(self.input_tokens, other.input_tokens),
            _sum(self.output_tokens, other.output_tokens),
        )

    def cost(self, input_per_million: float, output_per_million: float) -> float | None:
        """Return the cost of the tokens, or ``None`` if they were not counted."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return (self.input_tokens * input_per_million + self.output_tokens * output_per_million) / 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A stored summary.

    Attributes:
        text: prose; times of the recording are cited as ``[HH:MM:SS]``.
        language: code of the language requested from the model.
        model: name of the language model on its server.
        parts: title, chapters and so on, for a structured summary.
        usage: usage of all its calls.
        cost: cost by the configured prices; ``None`` without a price.
        completion_id: id of the last call, for finding it in the provider's records.
        created_at: aware UTC.
    """

    text: str
    language: str
    model: str
    created_at: datetime
    completion_id: str
    parts: StructuredSummary | None = None
    usage: TokenUsage = field(default_factory=TokenUsage)
    cost: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {"created_at": self.created_at.isoformat()}


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
