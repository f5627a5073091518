"""Tasks from links: a post on TikTok or Douyin, or a page of any site that the extractor library supports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NoReturn

from fastapi import APIRouter, Request, Response

from deployments.api.dependencies import ClientDep, ServicesDep, TaskId
from deployments.api.request.body import MAX_FORM_BYTES, RequestBody
from deployments.api.request.idempotency_key import IdempotencyKey
from deployments.api.request.link_options import link_request_body, parse_link_request
from deployments.api.request.multipart import read_form
from deployments.api.request.task_options import check_loaded_engine
from deployments.api.response.envelope import base_url, envelope, error_responses
from deployments.api.response.request_echo import note_params
from deployments.api.response.schemas import Envelope
from deployments.api.response.task_record import CrawlRecordBody, TaskRecord, task_record
from deployments.api.services import Services
from pipeline.domain.links.platforms import LinkKind
from pipeline.domain.tasks.client import Client
from pipeline.errors import CrawlRecordNotFound, InvalidValue, UrlNotAllowed

router = APIRouter(prefix="/api", tags=["links"])
_LINK_EXPECTED = "Send the link as url, in a form or query field; options may be form or query fields too."
ANSWERS: dict[str, Any] = {
    "response_model": Envelope[TaskRecord],
    "responses": error_responses(400, 409, 413, 415, 422),
    "openapi_extra": link_request_body(),
}


@router.post("/tiktok/video_task", **ANSWERS)
async def tiktok_video_task(
    request: Request, services: ServicesDep, client: ClientDep, idempotency_key: IdempotencyKey
) -> Response:
    """Queue a TikTok post for transcription. Only links to TikTok are accepted, including short ones.

    The response is immediate; the post is fetched in the task's stage `fetching`. An empty field means "not given".
    """
    return await _create(request, services, client, LinkKind.TIKTOK, idempotency_key)


@router.post("/douyin/video_task", **ANSWERS)
async def douyin_video_task(
    request: Request, services: ServicesDep, client: ClientDep, idempotency_key: IdempotencyKey
) -> Response:
    """Queue a Douyin post for transcription. Only links to Douyin are accepted, including short ones.

    The response is immediate; the post is fetched in the task's stage `fetching`. An empty field means "not given".
    """
    return await _create(request, services, client, LinkKind.DOUYIN, idempotency_key)


@router.post("/crawl/video_task", **ANSWERS)
async def crawl_video_task(
    request: Request, services: ServicesDep, client: ClientDep, idempotency_key: IdempotencyKey
) -> Response:
    """Queue the recording on a page of any site that yt-dlp supports.

    `platform` names the only extractor that may read the page (`youtube`, `vimeo`, `soundcloud` …). If it is empty, the
    matching extractor is used, and the task's record names it. A link to several recordings is refused.
    """
    return await _create(request, services, client, LinkKind.ANY, idempotency_key)


@router.get("/crawl/records", response_model=Envelope[CrawlRecordBody], responses=error_responses(404, 422))
async def crawl_record(request: Request, services: ServicesDep, task_id: TaskId) -> Response:
    """Return the site's information about a task's recording: author, title, duration, ids and counts."""
    crawled = await services.store.crawl_record(task_id)
    if crawled is None:
        raise CrawlRecordNotFound(
            f"Task {task_id} has no crawl record: it has no link, the link was not fetched yet, "
            "or save_data_in_db was false."
        )
    return envelope(request, CrawlRecordBody.model_validate({"task_id": task_id, **_fields(crawled)}))


async def _create(
    request: Request, services: Services, client: Client | None, kind: LinkKind, idempotency_key: str | None
) -> Response:
    body = RequestBody(request)
    async with services.submitter.intake(idempotency_key, client) as intake:
        form = await read_form(request, body, _refuse_file, MAX_FORM_BYTES, expectation=_LINK_EXPECTED)
        note_params(request, form)
        task_request = parse_link_request(
            {**request.query_params, **{name: value for name, value in form.items() if value.strip()}}, kind
        )
        await check_loaded_engine(task_request, services)
        try:
            task, _ = await intake.create(task_request.submission)
        except UrlNotAllowed as error:
            raise UrlNotAllowed(error.message, "url" if error.field == "file_url" else error.field) from error
    record = task_record(task, base_url(request, services))
    return envelope(request, record, headers={"Location": record.output_url})


def _fields(crawled: Any) -> dict[str, Any]:
    return {name: getattr(crawled, name) for name in crawled.__dataclass_fields__}


async def _refuse_file(data: AsyncIterator[bytes], name: str | None) -> NoReturn:
    raise InvalidValue("This route accepts only a link as url; send files to /api/whisper/tasks/create.", "file_upload")
