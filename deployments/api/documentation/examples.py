"""Example responses for the OpenAPI document, built from the schemas so that they stay correct."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from deployments.api.response.problems import status_of
from deployments.api.response.schemas import (
    AnyEnvelope,
    ConfinementBody,
    DeletedTask,
    EngineBody,
    ErrorBody,
    ErrorDetail,
    FieldProblem,
    HealthBody,
    ReadyBody,
    Schema,
)
from deployments.api.response.task_record import TaskPageData, task_record
from deployments.api.routes.callback_echo import CallbackEcho
from deployments.api.routes.summaries import SummaryData, summary_data
from pipeline import errors
from pipeline.domain.audio.tracks import Track
from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcript import Segment, Transcript, TranscriptInfo, Word
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.summaries.summary import Summary, TokenUsage
from pipeline.domain.tasks.task import Priority, Stage, Status, Task

BASE = "http://localhost:8000"
TASKS = "/api/whisper/tasks"

_SENTENCES: Mapping[type[errors.MurmurationError], str] = {
    errors.SourceMissing: "Send a recording: a file in the part file_upload, or its URL as file_url.",
    errors.NotAuthenticated: "This needs a key: send it as Authorization: Bearer <key>.",
    errors.ScopeMissing: "The key reader does not have the scope write, which this needs.",
    errors.TaskNotFound: "There is no task of that id.",
    errors.UploadStalled: "Nothing arrived for 30 s: send the body again.",
    errors.TaskStateConflict: "The task has finished already.",
    errors.ProtocolVersionUnsupported: "Only tus 1.0.0 is supported: send Tus-Resumable: 1.0.0.",
    errors.UploadTooLarge: "The file is too large: 2,147,483,649 bytes have arrived and the limit is 2,147,483,648.",
    errors.AddressTooLong: "The URL is too long: its path may have 4,096 bytes, its query string 40,960.",
    errors.UnsupportedMediaType: "Send the recording as multipart/form-data, in a part named file_upload.",
    errors.InvalidValue: "beam_size: Input should be less than or equal to 20.",
    errors.TooManyRequests: "The key reader may call 60 per 1 minute: wait 12 s.",
    errors.HeadersTooLarge: "The headers are too large: the limit is 100 headers and 65,536 bytes in all.",
    errors.ChecksumMismatch: "The bytes do not match their checksum: send them again.",
    errors.MurmurationError: "The service failed with an internal error, which has been logged.",
    errors.SourceUnreachable: "The server of the recording does not respond.",
    errors.QueueFull: "10,000 tasks wait already, and the limit is 10,000: try again later.",
    errors.SourceTimeout: "The server of the recording took too long.",
}
"""An example sentence for one error of each status. Code and status come from the error class, so they stay correct."""

_ERRORS = {status_of(error): (error.code, sentence) for error, sentence in _SENTENCES.items()}


def error_example(status: int, path: str) -> dict[str, Any]:
    """Return an example error in the task API's shape."""
    error, message = _ERRORS[status]
    fields = [FieldProblem(field="beam_size", message="Input should be less than or equal to 20.")]
    detail = ErrorDetail(
        code=status,
        error=error,
        message=message,
        time=_task().created_at,
        router=f"{BASE}{path}",
        params={},
        errors=fields if status == 422 else None,
    )
    return ErrorBody(detail=detail).model_dump(mode="json", exclude=None if status == 422 else {"detail": {"errors"}})


def examples() -> Mapping[tuple[str, str, int], dict[str, Any]]:
    """Return example responses of successful requests, by method, path and status."""
    queued, processing, completed = map(task_record, (_task(), _processing(), _completed()))
    page = TaskPageData(tasks=[completed], total_count=1, has_more=False, next_offset=None)
    echo = CallbackEcho(message="The callback has arrived.", callback_data={"id": 1, "status": "completed"})
    task_params = {"task_id": "1"}
    return {
        ("post", f"{TASKS}/create", 200): _envelope(queued, f"{TASKS}/create", {"language": "en"}),
        ("get", f"{TASKS}/result", 200): _envelope(completed, f"{TASKS}/result", task_params),
        ("get", f"{TASKS}/result", 202): _envelope(processing, f"{TASKS}/result", task_params, 202),
        ("post", f"{TASKS}/query", 200): _envelope(page, f"{TASKS}/query", {"limit": 20}),
        ("delete", f"{TASKS}/delete", 200): _envelope(
            DeletedTask(task_id=1, message="The task was deleted."), f"{TASKS}/delete", task_params
        ),
        ("post", f"{TASKS}/cancel", 200): _envelope(
            task_record(replace(_task(), status=Status.CANCELLED, finished_at=_at(9))), f"{TASKS}/cancel", task_params
        ),
        ("post", f"{TASKS}/retry", 200): _envelope(queued, f"{TASKS}/retry", task_params),
        ("post", "/api/whisper/callback/test", 200): _envelope(echo, "/api/whisper/callback/test", {}),
        ("post", "/api/chatgpt/summary", 200): _envelope(_summary(), "/api/chatgpt/summary", {"task_id": 1}),
        ("get", "/api/health/check", 200): HealthBody().model_dump(mode="json"),
        ("get", "/api/health/ready", 200): ReadyBody(
            engine=EngineBody(
                engine="faster_whisper", model="base", device="cpu", compute_type="int8", languages=["en", "zh"]
            ),
            confinement=ConfinementBody(
                level="full",
                filesystem=True,
                network=True,
                processes=True,
                signals=True,
                privileges=True,
                memory=True,
            ),
        ).model_dump(mode="json"),
    }


def _summary() -> SummaryData:
    summary = Summary(
        text="[00:00:00] Somebody greets the world.",
        language="en",
        model="gpt-4o-mini",
        created_at=_at(5),
        completion_id="chatcmpl-1",
        usage=TokenUsage(calls=1, input_tokens=420, output_tokens=17),
    )
    return summary_data("Hello world.", summary)


def _envelope(data: Schema, path: str, params: dict[str, Any], code: int = 200) -> dict[str, Any]:
    query = "&".join(f"{name}={value}" for name, value in params.items() if name == "task_id")
    url = f"{BASE}{path}{'?' if query else ''}{query}"
    return AnyEnvelope(code=code, router=url, params=params, data=data).model_dump(mode="json")


def _at(second: int) -> datetime:
    return datetime(2026, 1, 31, 12, 0, second, tzinfo=UTC)


def _task() -> Task:
    return Task(
        id=1,
        status=Status.QUEUED,
        priority=Priority.NORMAL,
        engine_name=EngineName.FASTER_WHISPER,
        options=TranscriptionOptions(language="en"),
        media_prefix="0f8fad5bd9cb469fa16570867728950e",
        media_key="0f8fad5bd9cb469fa16570867728950e/source",
        file_name="interview.mp3",
        file_size_bytes=160_000,
        created_at=_at(0),
        updated_at=_at(0),
    )


def _processing() -> Task:
    return replace(
        _task(),
        status=Status.PROCESSING,
        stage=Stage.TRANSCRIBING,
        attempts=1,
        started_at=_at(1),
        updated_at=_at(2),
        file_duration_s=10.0,
        split_done=True,
        audio_total_s=8.0,
        audio_done_s=2.0,
    )


def _completed() -> Task:
    word = Word(start=0.2, end=0.56, word=" Hello", probability=0.9)
    segment = Segment(1, 20, 0.2, 1.6, " Hello world.", (50364, 2425, 1002, 13), 0.0, -0.2, 0.6, 0.01, (word,))
    info = TranscriptInfo(
        "en",
        0.98,
        10.0,
        8.0,
        (("en", 0.98), ("de", 0.01)),
        {"beam_size": 5},
        {"threshold": 0.5},
        (Track(0, "aac", "eng", channels=2, default=True, chosen=True),),
    )
    return replace(
        _processing(),
        status=Status.COMPLETED,
        stage=None,
        audio_done_s=8.0,
        finished_at=_at(3),
        updated_at=_at(3),
        language="en",
        result=Transcript("Hello world.", (segment,), info),
    )
