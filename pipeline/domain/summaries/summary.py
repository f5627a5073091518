"""Summaries of transcripts: what is asked for, what comes back, and how far a task's summary is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from annotated_types import MaxLen


class SummaryFormat(StrEnum):
    """``text`` is prose with times; ``structured`` adds title, chapters, action items and keywords."""

    TEXT = "text"
    STRUCTURED = "structured"


class SummaryStatus(StrEnum):
    """How far a task's summary is. ``skipped``: the task ended without a transcript, or was cancelled before it."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryOptions:
    """What a summary is to be like."""

    summary_prompt: Annotated[str, MaxLen(4000)] | None = None
    """What the summary is for, in your own words: it goes before the usual instructions where they differ."""
    summary_model: Annotated[str, MaxLen(200)] | None = None
    """The language model. Empty: the one that is configured."""
    summary_language: str | None = None
    """Language of the summary: a code or a name. Empty: that of the transcript."""
    summary_format: SummaryFormat = SummaryFormat.TEXT
    """`text` for prose; `structured` for a title, chapters with their starts, action items and keywords as well."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the recording: where it begins, in seconds, what it is called, and what happens in it."""

    start: float
    title: str
    summary: str


@dataclass(frozen=True, slots=True)
class StructuredSummary:
    """A summary in parts."""

    title: str
    summary: str
    chapters: tuple[Chapter, ...]
    action_items: tuple[str, ...]
    keywords: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Calls of a language model, and their tokens; ``None`` where its server does not count."""

    calls: int = 0
    input_tokens: int | None = 0
    output_tokens: int | None = 0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        """Both together."""
        return TokenUsage(
            self.calls + other.calls,
            _sum(self.input_tokens, other.input_tokens),
            _sum(self.output_tokens, other.output_tokens),
        )

    def cost(self, input_per_million: float, output_per_million: float) -> float | None:
        """What the tokens cost, if they were counted."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return (self.input_tokens * input_per_million + self.output_tokens * output_per_million) / 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A summary as it is kept.

    Attributes:
        text: prose; times of the recording are cited as ``[HH:MM:SS]``.
        language: code of the language it was to be written in.
        model: the language model, as its server calls it.
        parts: title, chapters and so on, where they were asked for.
        usage: of all calls it took.
        cost: by the configured prices; ``None`` where there is none.
        completion_id: id of the last call, for a look into the provider's own records.
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
        """Plain data for JSON."""
        return asdict(self) | {"created_at": self.created_at.isoformat()}


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
