"""The fields of a task from a link, parsed into values of the domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from annotated_types import MaxLen

from deployments.api.request.forms import Form
from deployments.api.request.task_options import CHECKS, TASK_FORM, TaskRequest, parse_task_request
from pipeline.domain.links.platforms import Link, LinkKind
from pipeline.errors import InvalidValue, SourceConflict, SourceMissing


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFields:
    """The fields of a link's form besides the options of every task."""

    url: Annotated[str, MaxLen(2048)] | None = None
    """The link, as copied with the site's share button. Required."""
    save_data_in_db: bool = True
    """Store the site's information about the recording, for `/api/crawl/records`."""


LINK_FORM = Form(LinkFields, checks={"url": CHECKS["file_url"]})


def parse_link_request(values: Mapping[str, object], kind: LinkKind) -> TaskRequest:
    """Parse a link and the options of its task, given by name as text (HTTP) or as Python values.

    Raises:
        SourceMissing: there is no ``url``.
        UnsupportedLink: the link leads to another site than ``kind`` accepts.
        RequestError: as ``parse_task_request``.
    """
    if "file_url" in values:
        raise InvalidValue("Send the link as url; file_url belongs to /api/whisper/tasks/create.", "file_url")
    own = LINK_FORM.parse({name: value for name, value in values.items() if name in LINK_FORM.names})
    task_request = parse_task_request({name: value for name, value in values.items() if name not in LINK_FORM.names})
    url = own.get("url")
    if task_request.upload_id is not None:
        raise SourceConflict("An upload_id was sent together with a link: send one of them.")
    if url is None:
        raise SourceMissing("The link is missing: send it as url.")
    if kind.platform is not None:
        kind.platform.check(url, "url")
    submission = task_request.submission
    extractor = submission.platform if kind is LinkKind.ANY else None
    platform = submission.platform or (kind.value if kind.platform else None)
    link = Link(kind, extractor, own.get("save_data_in_db", True))
    return replace(task_request, submission=replace(submission, file_url=url, link=link, platform=platform))


def link_request_body() -> dict[str, Any]:
    """Describe the body for OpenAPI, as ``task_options.request_body`` does."""
    properties = LINK_FORM.properties() | TASK_FORM.properties()
    del properties["file_url"], properties["upload_id"]
    schema = {"type": "object", "required": ["url"], "properties": properties}
    kinds = ("application/x-www-form-urlencoded", "multipart/form-data")
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}
