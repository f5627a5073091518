"""Subtitle files of completed tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import WithJsonSchema

from deployments.api.concurrency.event_loop import PIECE_BYTES, slices
from deployments.api.dependencies import ServicesDep, TaskId
from deployments.api.request.caller import client_name
from deployments.api.request.forms import Form, inlined
from deployments.api.response.envelope import FILE_NAME, error_responses
from deployments.api.response.large_json import SpoolResponse, spooled
from deployments.api.response.schemas import Schema
from pipeline.domain.decoding.transcript import Segment, Transcript
from pipeline.domain.tasks.task import Status
from pipeline.errors import TaskNotFinished
from pipeline.subtitles.cues import CueStyle
from pipeline.subtitles.writers import FORMATS, write_subtitles

router = APIRouter(prefix="/api/whisper", tags=["subtitles"])


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatField:
    """The format of the file."""

    output_format: Annotated[str, WithJsonSchema({"type": "string", "enum": [*FORMATS]})] = "srt"
    """The format of the file: `srt`, `vtt`, `ass` and `lrc` show cues, `txt`, `tsv` and `json` list segments."""


class TranscriptFile(Schema):
    """A transcript as a file, in the format of OpenAI's `whisper` command."""

    text: str
    segments: list[Segment]
    language: str


def _known_format(text: str) -> str:
    name = text.strip().lower().removeprefix(".")
    if name not in FORMATS:
        raise ValueError(f"There is no format {name[:20]!a}: use {', '.join(FORMATS)}")
    return name


SUBTITLE_FORM = Form(FormatField, CueStyle, checks={"output_format": _known_format})
_FILES: Mapping[str, dict[str, Any]] = {
    **{form.media_type.partition(";")[0]: {"schema": {"type": "string"}} for form in FORMATS.values()},
    "application/json": {"schema": inlined(TranscriptFile.model_json_schema())},
}


@router.get(
    "/generate_subtitles",
    response_class=Response,
    responses={
        200: {"description": "The file", "content": dict(_FILES), **FILE_NAME},
        **error_responses(400, 404, 422),
    },
    openapi_extra={"parameters": SUBTITLE_FORM.parameters()},
)
async def generate_subtitles(request: Request, services: ServicesDep, task_id: TaskId) -> Response:
    """Return the transcript of a completed task as a subtitle file."""
    style_params = {name: value for name, value in request.query_params.items() if name != "task_id"}
    style = SUBTITLE_FORM.parse(style_params)
    output_format = style.pop("output_format", FormatField().output_format)
    task = await services.store.get(task_id)
    if task.status is not Status.COMPLETED:
        raise TaskNotFinished(f"The task is {task.status}: there are subtitles once it is completed.")
    async with services.transcript_slots.hold(client_name(request)):
        task = await services.store.get(task_id, include_result=True)
        if task.result is None:
            raise TaskNotFinished(f"The task is {task.status}: there are subtitles once it is completed.")
        # A worker thread, since hours of speech take a second to lay out.
        content = await services.workers.run(_written, task.result, output_format, CueStyle(**style))
        spool = await spooled(services.workers, slices(content, PIECE_BYTES))
    return SpoolResponse(
        spool,
        FORMATS[output_format].media_type,
        headers={"Content-Disposition": f'attachment; filename="Task_{task.id}_Subtitle.{output_format}"'},
    )


def _written(transcript: Transcript, output_format: str, style: CueStyle) -> bytes:
    return write_subtitles(transcript, output_format, style).encode()
