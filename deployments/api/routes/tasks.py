"""Routes that create, read, query, cancel, retry and delete tasks."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BeforeValidator, ValidationError
from pydantic_core import from_json
from starlette.responses import StreamingResponse

from deployments.api.dependencies import ClientDep, ServicesDep, TaskId
from deployments.api.request.body import FORM_TYPE, RequestBody, parse_urlencoded
from deployments.api.request.forms import inlined, invalid_value, parse_json, refuse_unknown
from deployments.api.request.idempotency_key import IdempotencyKey
from deployments.api.request.lenient_values import is_blank, json_text
from deployments.api.request.multipart import read_form
from deployments.api.request.task_options import TASK_FORM, check_loaded_engine, parse_task_request, request_body
from deployments.api.response.envelope import base_url, envelope, error_responses, header, record_response
from deployments.api.response.problems import error_response, status_of_code
from deployments.api.response.request_echo import note_params
from deployments.api.response.schemas import DeletedTask, Envelope
from deployments.api.response.task_filter import TaskFilter
from deployments.api.response.task_page import TaskPageStream
from deployments.api.response.task_record import TaskPageData, TaskRecord, task_record
from deployments.api.services import Services
from pipeline.domain.tasks.task import Status, TaskError
from pipeline.errors import TaskCancelled, UnsupportedMediaType
from pipeline.usecases.tasks.keepalive import delete_task_and_media
from pipeline.usecases.tasks.watch import wait_for_end

_SOURCE_EXPECTED = (
    "Send the recording as multipart/form-data, in a part named file_upload or file, or its file_url as a form or "
    "query field; options may be form or query fields too."
)

router = APIRouter(prefix="/api/whisper/tasks", tags=["tasks"])


@router.post(
    "/create",
    response_model=Envelope[TaskRecord],
    responses={200: header("Location", "Link to the result."), **error_responses(400, 404, 408, 409, 413, 415, 422)},
    openapi_extra={"parameters": TASK_FORM.parameters(), "requestBody": request_body()},
)
async def create_task(
    request: Request,
    services: ServicesDep,
    client: ClientDep,
    idempotency_key: IdempotencyKey,
) -> Response:
    """Queue a recording for transcription: a file, a URL to fetch it from, or a finished resumable upload.

    Options may be query parameters or form fields; a form field takes precedence. An empty value means "not given".
    """
    query, body = dict(request.query_params), RequestBody(request)
    async with services.submitter.intake(idempotency_key, client) as intake:
        parse_task_request(query)  # refuse invalid parameters before the upload
        form = await read_form(
            request, body, intake.receive, services.settings.media.max_upload_bytes, expectation=_SOURCE_EXPECTED
        )
        note_params(request, form)
        refuse_unknown(form, TASK_FORM.names)
        task_request = parse_task_request(query | {name: value for name, value in form.items() if value.strip()})
        await check_loaded_engine(task_request, services)
        if task_request.upload_id is None:
            task, _ = await intake.create(task_request.submission)
        else:
            intake.refuse_other_source(task_request.submission)
            upload = await services.uploads.get(task_request.upload_id, client)
            task = await services.submitter.submit_upload(
                services.uploads, upload, task_request.submission, idempotency_key=idempotency_key, client=client
            )
    record = task_record(task, base_url(request, services))
    return envelope(request, record, headers={"Location": record.output_url})


@router.get(
    "/result",
    response_model=Envelope[TaskRecord],
    responses={
        202: {"model": Envelope[TaskRecord], "description": "Queued or processing; the record contains the progress"},
        **error_responses(404, 409, 413, 422, 502, 504),
    },
)
async def task_result(
    request: Request,
    services: ServicesDep,
    task_id: TaskId,
    wait_s: Annotated[
        float,
        Query(ge=0, le=60, allow_inf_nan=False, description="Seconds to wait for the end of the task."),
        BeforeValidator(lambda value: 0.0 if is_blank(value) else value),
    ] = 0.0,
) -> Response:
    """Return a task: with its transcript once it is completed, with the cause once it has failed."""
    store, watch_end, clock = services.store, services.dispatcher.watch_end, services.clock
    task = await wait_for_end(store, watch_end, clock, task_id, wait_s, include_result=False)
    if task.status is Status.FAILED:
        cause = task.error or TaskError("internal_error", "The task failed.")
        return error_response(request, status_of_code(cause.code), cause.code, cause.message)
    if task.status is Status.CANCELLED:
        raise TaskCancelled("The task was cancelled: retry it to queue it again.")
    return await record_response(request, services, task, 200 if task.status is Status.COMPLETED else 202)


def _filter_document() -> dict[str, Any]:
    """Describe a filter for OpenAPI, in the body and in the query string."""
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
    """List the tasks that match a filter, oldest first by default.

    Conditions may be in a JSON body, a form, or query parameters; one in the body takes precedence. A page with
    transcripts may end before `limit`: continue at `next_offset` as long as there is one.
    """
    condition = await _read_filter(request, services)
    note_params(request, condition.model_dump(mode="json"))
    page = await TaskPageStream.read(request, services, condition)
    return StreamingResponse(page.pieces(), media_type="application/json")


@router.delete("/delete", response_model=Envelope[DeletedTask], responses=error_responses(404, 422))
async def delete_task(request: Request, services: ServicesDep, task_id: TaskId) -> Response:
    """Delete a task with its recording and its result. A running task is cancelled first."""
    await delete_task_and_media(services.store, services.media, services.dispatcher.cancel, task_id)
    return envelope(request, DeletedTask(task_id=task_id, message="The task was deleted."))


@router.post("/cancel", response_model=Envelope[TaskRecord], responses=error_responses(404, 409, 422))
async def cancel_task(request: Request, services: ServicesDep, task_id: TaskId) -> Response:
    """Cancel a task that has not finished. Chunks that are being decoded stop with their batch."""
    task = await services.store.cancel(task_id)
    await services.dispatcher.cancel(task_id)
    return envelope(request, task_record(task, base_url(request, services)))


@router.post("/retry", response_model=Envelope[TaskRecord], responses=error_responses(404, 409, 422))
async def retry_task(request: Request, services: ServicesDep, client: ClientDep, task_id: TaskId) -> Response:
    """Queue a failed or cancelled task again. Decoded chunks are kept."""
    task = await services.store.retry(task_id, client)
    await services.dispatcher.wake()
    return envelope(request, task_record(task, base_url(request, services)))


async def _read_filter(request: Request, services: Services) -> TaskFilter:
    """Return the filter from the query string and the body; conditions in the body take precedence."""
    query = dict(request.query_params)
    body = json_text(await RequestBody(request).read(services.settings.http.max_json_bytes))
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        raise UnsupportedMediaType(f"Send the conditions as JSON, as {FORM_TYPE}, or in the query string.")
    if media_type == FORM_TYPE and not body.startswith((b"{", b"[")):  # curl -d also labels JSON so
        return _parse_filter(lambda: TaskFilter.model_validate(query | dict(parse_urlencoded(body))))
    in_body = parse_json(body, TaskFilter)
    return _parse_filter(lambda: TaskFilter.model_validate(query | from_json(body))) if query else in_body


def _parse_filter(parse: Callable[[], TaskFilter]) -> TaskFilter:
    try:
        return parse()
    except ValidationError as error:
        refuse_unknown([str(item["loc"][0]) for item in error.errors() if item["loc"]], TaskFilter.model_fields)
        raise invalid_value(error.errors()) from error
