"""Tasks: create, read, query, cancel, retry, delete."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BeforeValidator, ValidationError, WithJsonSchema
from pydantic_core import from_json
from starlette.responses import StreamingResponse

from deployments.api.request.forms import inlined, invalid_value, parse_json, refuse_unknown
from deployments.api.request.lenient_values import is_blank, json_text
from deployments.api.request.multipart import FORM_TYPE, RequestBody, open_body, parse_urlencoded, read_form
from deployments.api.request.task_options import TASK_FORM, TaskRequest, check_engine, parse_task_request, request_body
from deployments.api.response.envelope import (
    ClientDep,
    ServicesDep,
    TaskId,
    answer,
    base_url,
    error_responses,
    header,
    record_response,
)
from deployments.api.response.problems import error_response, status_of_code
from deployments.api.response.request_echo import note_params
from deployments.api.response.schemas import DeletedTask, Envelope, TaskFilter, TaskPageData, TaskRecord, record
from deployments.api.response.task_page import TaskPageStream
from deployments.api.services import Services
from pipeline.domain.tasks.task import Status, TaskError
from pipeline.errors import InvalidValue, TaskCancelled, UnsupportedMediaType
from pipeline.usecases.tasks.keepalive import delete_task_and_media
from pipeline.usecases.tasks.resumable_uploads import ResumableUploads
from pipeline.usecases.tasks.submit import Submitter
from pipeline.usecases.tasks.watch import wait_for_end

_SOURCE_WANTED = (
    "Send the recording as multipart/form-data, in a part named file_upload or file, or give its file_url as a form or "
    "query field; options may be form or query fields too."
)
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")

router = APIRouter(prefix="/api/whisper/tasks", tags=["tasks"])


@router.post(
    "/create",
    response_model=Envelope[TaskRecord],
    responses={200: header("Location", "Where the result is."), **error_responses(400, 404, 408, 409, 413, 415, 422)},
    openapi_extra={"parameters": TASK_FORM.parameters(), "requestBody": request_body()},
)
async def create_task(
    request: Request,
    services: ServicesDep,
    client: ClientDep,
    idempotency_key: Annotated[
        str | None,
        WithJsonSchema({"type": "string", "pattern": "^[!-~]{1,255}$", "examples": ["2f6f0f6e"]}),
        Header(description="The same key with the same request returns the original task."),
    ] = None,
) -> Response:
    """Queue a recording for transcription: a file, a URL to fetch it from, or a finished resumable upload.

    Options may be query parameters or form fields; a form field wins. An empty value means "not given".
    """
    submitter: Submitter = request.app.state.submitter
    query, key = dict(request.query_params), checked_idempotency_key(idempotency_key)
    async with open_body(request) as body, submitter.intake(key, client) as intake:
        parse_task_request(query)  # what is wrong there need not wait for the upload
        form = await read_form(request, body, intake.receive, submitter.max_upload_bytes, wanted=_SOURCE_WANTED)
        note_params(request, form)
        refuse_unknown(form, TASK_FORM.names)
        task_request = parse_task_request(query | {name: value for name, value in form.items() if value.strip()})
        await check_engine_of(task_request, services)
        if task_request.upload_id is None:
            task, _ = await intake.create(task_request.submission)
        else:
            intake.refuse_other_source(task_request.submission)
            uploads: ResumableUploads = request.app.state.uploads
            upload = await uploads.get(task_request.upload_id, client)
            task = await submitter.submit_upload(
                uploads, upload, task_request.submission, idempotency_key=key, client=client
            )
    shown = record(task, base_url(request, services))
    return answer(request, shown, headers={"Location": shown.output_url})


@router.get(
    "/result",
    response_model=Envelope[TaskRecord],
    responses={
        202: {"model": Envelope[TaskRecord], "description": "Queued or processing; the record shows the progress"},
        **error_responses(404, 409, 413, 422, 502, 504),
    },
)
async def task_result(
    request: Request,
    services: ServicesDep,
    task_id: TaskId,
    wait_s: Annotated[
        float,
        Query(ge=0, le=60, allow_inf_nan=False, description="Wait this long for the end."),
        BeforeValidator(lambda value: 0.0 if is_blank(value) else value),
    ] = 0.0,
) -> Response:
    """Read a task: its transcript once it is completed, the cause once it has failed."""
    store, watch_end, clock = services.store, services.watch_end, services.clock
    task = await wait_for_end(store, watch_end, clock, task_id, wait_s, include_result=False)
    if task.status is Status.FAILED:
        cause = task.error or TaskError("internal_error", "The task failed.")
        return error_response(request, status_of_code(cause.code), cause.code, cause.message)
    if task.status is Status.CANCELLED:
        raise TaskCancelled("The task was cancelled; retry brings it back.")
    return await record_response(request, services, task, 200 if task.status is Status.COMPLETED else 202)


def _filter_document() -> dict[str, Any]:
    """Return the OpenAPI description of a filter, in the body or the query string."""
    schema = inlined(TaskFilter.model_json_schema())
    properties: dict[str, dict[str, Any]] = schema["properties"]
    texts = {name: {"description": each["description"]} for name, each in properties.items() if "description" in each}
    parameters = [
        {"name": name, "in": "query", "required": False, **texts.get(name, {}), "schema": deepcopy(each)}
        for name, each in properties.items()
    ]
    for parameter in parameters:
        parameter["schema"].pop("description", None)
    content = {kind: {"schema": deepcopy(schema), "example": {}} for kind in ("application/json", FORM_TYPE)}
    return {"parameters": parameters, "requestBody": {"required": False, "content": content}}


@router.post(
    "/query",
    response_model=Envelope[TaskPageData],
    responses=error_responses(400, 413, 415, 422),
    openapi_extra=_filter_document(),
)
async def query_tasks(request: Request, services: ServicesDep) -> Response:
    """List tasks that match a filter, oldest first.

    Conditions may be in a JSON body, in a form, or query parameters; one in the body wins. A page with transcripts may
    end before `limit`: go on at `next_offset` for as long as there is one.
    """
    condition = await _read_filter(request)
    note_params(request, condition.model_dump(mode="json"))
    page = await TaskPageStream.read(request, services, condition)
    return StreamingResponse(page.pieces(), media_type="application/json")


@router.delete("/delete", response_model=Envelope[DeletedTask], responses=error_responses(404, 422))
async def delete_task(request: Request, services: ServicesDep, task_id: TaskId) -> Response:
    """Remove a task with its recording and its result; a running task is cancelled first."""
    await delete_task_and_media(services.store, services.media, services.cancel, task_id)
    return answer(request, DeletedTask(task_id=task_id, message="The task was deleted."))


@router.post("/cancel", response_model=Envelope[TaskRecord], responses=error_responses(404, 409, 422))
async def cancel_task(request: Request, services: ServicesDep, task_id: TaskId) -> Response:
    """Stop a task that has not finished; what is being decoded stops with its batch."""
    task = await services.store.cancel(task_id)
    await services.cancel(task_id)
    return answer(request, record(task, base_url(request, services)))


@router.post("/retry", response_model=Envelope[TaskRecord], responses=error_responses(404, 409, 422))
async def retry_task(request: Request, services: ServicesDep, client: ClientDep, task_id: TaskId) -> Response:
    """Queue a failed or cancelled task again; what was decoded is kept."""
    task = await services.store.retry(task_id, client)
    await services.wake()
    return answer(request, record(task, base_url(request, services)))


async def check_engine_of(task_request: TaskRequest, services: Services) -> None:
    """Asks what is loaded, where that matters."""
    options = task_request.submission.options
    if task_request.model or options.language or options.languages:
        check_engine(task_request, await services.engine(), services.settings.asr.model)


async def _read_filter(request: Request) -> TaskFilter:
    """Return the filter of a query string and a body, of which the body's conditions win."""
    query = dict(request.query_params)
    body = json_text(await RequestBody(request).read(request.app.state.services.settings.http.max_json_bytes))
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        raise UnsupportedMediaType(f"Send the conditions as JSON, as {FORM_TYPE}, or in the query string.")
    if media_type == FORM_TYPE and not body.startswith((b"{", b"[")):  # curl -d says so of JSON too
        return _parse_filter(lambda: TaskFilter.model_validate(query | dict(parse_urlencoded(body))))
    in_body = parse_json(body, TaskFilter)
    return _parse_filter(lambda: TaskFilter.model_validate(query | from_json(body))) if query else in_body


def _parse_filter(parse: Callable[[], TaskFilter]) -> TaskFilter:
    try:
        return parse()
    except ValidationError as error:
        refuse_unknown([str(item["loc"][0]) for item in error.errors() if item["loc"]], TaskFilter.model_fields)
        raise invalid_value(error.errors()) from error


def checked_idempotency_key(key: str | None) -> str | None:
    """An ``Idempotency-Key``, if it is one that can be kept."""
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidValue("Idempotency-Key takes 1 to 255 visible ASCII characters.", "Idempotency-Key")
    return key
