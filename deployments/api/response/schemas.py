"""The schemas that the routes of the task API share: envelopes, errors and health."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

Time = Annotated[
    datetime,
    PlainSerializer(datetime.isoformat, return_type=str, when_used="json"),
    Field(examples=["2026-01-31T12:00:00.000000+00:00"], json_schema_extra={"format": "date-time"}),
]
"""A time in UTC, written with its offset."""


class Schema(BaseModel):
    """The settings that all schemas share."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class DeletedTask(Schema):
    """A deleted task."""

    task_id: int
    message: str


Data = TypeVar("Data")


class Envelope(Schema, Generic[Data]):
    """The shape of all successful responses of the task routes."""

    code: int = Field(200, examples=[200])
    """The HTTP status."""
    router: str = Field(examples=["http://localhost:8000/api/whisper/tasks/result?task_id=1"])
    """The request's URL."""
    params: dict[str, Any]
    """The request's parameters, shortened and without secrets."""
    data: Data


AnyEnvelope = Envelope[Any]
"""An envelope around any data. Pydantic discards unreferenced generic classes, and takes 10 ms to rebuild one."""
EmptyEnvelope = Envelope[None]
"""An envelope without data, kept for the same reason."""


class FieldProblem(Schema):
    """An invalid field."""

    field: str
    message: str


class ErrorDetail(Schema):
    """The details of an error."""

    code: int = Field(examples=[422])
    """The HTTP status."""
    error: str = Field(examples=["invalid_value"])
    """Stable name of the error, for use in programs."""
    message: str = Field(examples=["beam_size: Input should be less than or equal to 20."])
    """A sentence about the cause and the remedy."""
    time: Time
    router: str
    params: dict[str, Any]
    errors: list[FieldProblem] | None = None
    """The invalid fields; omitted if there are none."""


class ErrorBody(Schema):
    """The shape of all errors on the task routes."""

    detail: ErrorDetail


class EngineBody(Schema):
    """The engine that transcribes."""

    engine: str
    model: str
    device: str
    compute_type: str
    languages: list[str]


class HealthBody(Schema):
    """A response that shows that the service is alive."""

    status: Literal["ok"] = "ok"


class ConfinementBody(Schema):
    """The restrictions on the processes that open recordings, on the responding node.

    A field is true if such a process cannot do what it names, even if an attacker controls it.
    """

    level: Literal["none", "partial", "full"]
    filesystem: bool
    """Reading, creating, changing or deleting files."""
    network: bool
    """Opening or accepting connections."""
    processes: bool
    """Starting processes or programs."""
    signals: bool
    """Signalling, tracing or inspecting other processes."""
    privileges: bool
    """Gaining privileges, raising limits, or reaching rarely used parts of the kernel."""
    memory: bool
    """Allocating more memory than the limit."""


class ReadyBody(Schema):
    """A response that shows that the service can transcribe."""

    status: Literal["ready"] = "ready"
    engine: EngineBody | None
    """The loaded engine; null while it is unknown."""
    problems: list[str] = []
    """Background failures that do not stop the processing of tasks, a sentence each; omitted if there are none."""
    confinement: ConfinementBody | None = None
    """The confinement on this node; omitted if it was not tried. Every replica logs its own when it starts."""
