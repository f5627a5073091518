"""The filter of a query for tasks, in the form that clients send."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from deployments.api.request.lenient_values import Choice, Trimmed, is_blank, trimmed
from deployments.api.response.schemas import Schema
from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.languages import parse_language
from pipeline.domain.decoding.transcription_options import TaskType
from pipeline.domain.tasks.task import Priority, Status
from pipeline.ports import TaskQuery


def _blank_as_none(value: object) -> object:
    return None if is_blank(value) else trimmed(value)


def _as_utc(value: datetime | None) -> datetime | None:
    if value is None:
        return None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("The date is outside the range that UTC can represent") from error


def _language_code(text: str | None) -> str | None:
    return None if text is None else parse_language(text)


def _or_blank(schema: dict[str, Any]) -> None:
    """Document that a field may be left empty."""
    schema["anyOf"].append({"type": "string", "pattern": r"^\s*$"})


def _or_null(schema: dict[str, Any]) -> None:
    """Document that null means the default of a field."""
    own = {key: schema.pop(key) for key in [*schema] if key not in ("default", "description", "title")}
    schema["anyOf"] = [own, {"type": "null"}]


Off = (BeforeValidator(_blank_as_none), Field(json_schema_extra=_or_blank))
OrDefault = Field(json_schema_extra=_or_null)
ShortText = Annotated[str, Field(max_length=200)]


class TaskFilter(Schema):
    """The conditions on the tasks to list. `null` or an empty text switches a condition off.

    A given condition always applies, and defaults that contradict it do not. If `status` is `null` or anything but
    `completed`, `has_result` and `has_error` apply only if they are given. If `has_result` is false or `has_error` is
    true, the other two of the three apply only if they are given.
    """

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    status: Annotated[Status | None, Choice, *Off] = Status.COMPLETED
    priority: Annotated[Priority | None, Choice, *Off] = Priority.NORMAL
    created_after: Annotated[datetime | None, *Off] = None
    """Inclusive; UTC where no offset is given."""
    created_before: Annotated[datetime | None, *Off] = None
    """Inclusive; UTC where no offset is given."""
    language: Annotated[ShortText | None, AfterValidator(_language_code), *Off] = None
    """A code, a tag or a name, as in a task's option `language`."""
    engine_name: Annotated[EngineName | None, Choice, *Off] = EngineName.FASTER_WHISPER
    has_result: Annotated[bool | None, *Off] = True
    has_error: Annotated[bool | None, *Off] = False
    limit: Annotated[int, Field(ge=1, le=500), OrDefault] = 20
    offset: Annotated[int, Field(ge=0, le=2**53), OrDefault] = 0
    task_type: Annotated[TaskType | None, Choice, *Off] = None
    platform: Annotated[ShortText | None, *Off] = None
    include_result: Annotated[bool, Trimmed, OrDefault] = True
    """Whether each record contains its transcript."""
    order: Annotated[Literal["asc", "desc"], Choice, OrDefault] = "asc"
    """Order by time of creation: oldest or newest first."""

    @model_validator(mode="before")
    @classmethod
    def _drop_blank_paging(cls, values: object) -> object:
        """Remove blank paging fields: null or an empty text means their default, since paging can't be switched off."""
        if not isinstance(values, dict):
            return values
        paging = ("limit", "offset", "include_result", "order")
        return {name: value for name, value in values.items() if not (name in paging and is_blank(value))}

    @model_validator(mode="after")
    def _drop_excluded_defaults(self) -> Self:
        """Switch off the defaults that contradict a given condition. Together the three defaults mean "transcribed"."""
        if self.status is not Status.COMPLETED or self.has_result is False or self.has_error is True:
            for name in {"status", "has_result", "has_error"} - self.model_fields_set:
                object.__setattr__(self, name, None)  # without marking it as given
        return self

    @model_validator(mode="after")
    def _times_in_utc(self) -> Self:
        self.created_after, self.created_before = _as_utc(self.created_after), _as_utc(self.created_before)
        return self

    def as_query(self) -> TaskQuery:
        """Return the filter as a query of the store."""
        conditions = self.model_dump(exclude={"order"})
        return TaskQuery(descending=self.order == "desc", **conditions)
