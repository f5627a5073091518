"""Resumable uploads by the protocol tus 1.0 (https://tus.io/protocols/resumable-upload).

The core protocol is supported, with the extensions creation, creation-with-upload, termination, checksum and
expiration. Any replica accepts any request of an upload, since its state is in the database and its bytes are in the
media store. Once all bytes have arrived, ``tasks/create`` with the ``upload_id`` creates a task from it.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from email.utils import format_datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from deployments.api.dependencies import ClientDep, ServicesDep
from deployments.api.request.body import RequestBody
from deployments.api.response.envelope import base_url, error_responses
from pipeline.domain.tasks.upload import Upload
from pipeline.domain.text.file_names import plain_file_name
from pipeline.errors import InvalidValue, ProtocolVersionUnsupported, UnsupportedMediaType, UploadStateConflict
from pipeline.usecases.tasks.resumable_uploads import CHECKSUMS, Checksum

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,checksum,expiration"
BODY_TYPE = "application/offset+octet-stream"
MAX_METADATA = 4096
MAX_SIZE_DIGITS = 15
FILE_NAMES = ("filename", "name")

_ID = re.compile(r"[0-9a-f]{32}")
_METADATA_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,100}")

PREFIX = "/api/whisper/uploads"
router = APIRouter(prefix=PREFIX, tags=["resumable uploads"])


async def _check_version(request: Request) -> None:
    """Refuse a request for another version of the protocol. Only OPTIONS may omit the version."""
    if request.headers.get("tus-resumable") != VERSION:
        raise ProtocolVersionUnsupported(f"Only tus {VERSION} is supported: send Tus-Resumable: {VERSION}.")


async def _upload(
    upload_id: Annotated[str, Path(description="The last part of the upload's URL.")],
    services: ServicesDep,
    client: ClientDep,
) -> Upload:
    return await services.uploads.get(upload_id if _ID.fullmatch(upload_id) else "", client)


UploadDep = Annotated[Upload, Depends(_upload)]
SPOKEN = [Depends(_check_version)]


def _header(description: str, *, required: bool = False) -> dict[str, Any]:
    return {"in": "header", "required": required, "schema": {"type": "string"}, "description": description}


_TUS = {"name": "Tus-Resumable", **_header(f"`{VERSION}`", required=True)}
_LENGTH = {"name": "Upload-Length", **_header("The total size of the upload, in bytes.", required=True)}
_METADATA = {
    "name": "Upload-Metadata",
    **_header("`name base64,…`; `filename` becomes the task's file name. At most 4 KiB."),
}
_OFFSET = {
    "name": "Upload-Offset",
    **_header("The position of these bytes, which is the present end of the upload.", required=True),
}
_CHECKSUM = {
    "name": "Upload-Checksum",
    **_header(f"`algorithm base64`, the checksum of the body; {', '.join(CHECKSUMS)}."),
}
_BODY = {"required": False, "content": {BODY_TYPE: {"schema": {"type": "string", "format": "binary"}}}}


@router.options("", status_code=204, response_class=Response)
async def describe_uploads(services: ServicesDep) -> Response:
    """Return the supported version and extensions of tus."""
    return _answer(
        204,
        {
            "Tus-Version": VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Max-Size": str(services.uploads.max_upload_bytes),
            "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
        },
    )


@router.post(
    "",
    status_code=201,
    response_class=Response,
    dependencies=SPOKEN,
    responses={
        201: {"description": "Created; `Location` is its URL"},
        **error_responses(400, 408, 409, 412, 413, 415, 422, 460),
    },
    openapi_extra={"parameters": [_TUS, _LENGTH, _METADATA, _CHECKSUM], "requestBody": _BODY},
)
async def begin_upload(request: Request, services: ServicesDep, client: ClientDep) -> Response:
    """Create an upload. The body may contain its first bytes."""
    await services.submitter.check_room(client)
    if "upload-defer-length" in request.headers:
        raise InvalidValue("Upload-Defer-Length is not supported: send the size as Upload-Length.", "Upload-Length")
    size_bytes = _number(request, "Upload-Length")
    metadata = _metadata(request.headers.get("upload-metadata", ""))
    checksum = _checksum(request)
    upload = await services.uploads.create(size_bytes, metadata, client)
    location = {"Location": f"{base_url(request, services).rstrip('/')}{PREFIX}/{upload.id}"}
    if request.headers.get("content-type") == BODY_TYPE:
        upload = await services.uploads.append(upload, 0, aiter(RequestBody(request)), checksum)
    return _answer(201, location | _state(upload))


@router.head(
    "/{upload_id}",
    response_class=Response,
    dependencies=SPOKEN,
    responses=error_responses(404, 412, 422),
    openapi_extra={"parameters": [_TUS]},
)
async def upload_offset(upload: UploadDep) -> Response:
    """Return how many bytes of an upload have arrived."""
    headers = {"Upload-Length": str(upload.size_bytes), "Cache-Control": "no-store"}
    if upload.metadata:
        headers["Upload-Metadata"] = ",".join(f"{key} {_base64(value)}" for key, value in upload.metadata.items())
    return _answer(200, headers | _state(upload))


@router.patch(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    dependencies=SPOKEN,
    responses={204: {"description": "Appended"}, **error_responses(400, 404, 408, 409, 412, 413, 415, 422, 460)},
    openapi_extra={"parameters": [_TUS, _OFFSET, _CHECKSUM], "requestBody": _BODY},
)
async def append_to_upload(request: Request, services: ServicesDep, upload: UploadDep) -> Response:
    """Append the body to an upload. Bytes that arrive before a connection breaks are kept."""
    if request.headers.get("content-type") != BODY_TYPE:
        raise UnsupportedMediaType(f"Send the bytes of an upload as Content-Type: {BODY_TYPE}.")
    offset, checksum = _number(request, "Upload-Offset"), _checksum(request)
    if upload.task_id is not None:
        raise UploadStateConflict(f"The upload is complete and became task {upload.task_id}.")
    added = await services.uploads.append(upload, offset, aiter(RequestBody(request)), checksum)
    return _answer(204, _state(added))


@router.delete(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    dependencies=SPOKEN,
    responses={204: {"description": "Deleted"}, **error_responses(404, 412, 422)},
    openapi_extra={"parameters": [_TUS]},
)
async def delete_upload(services: ServicesDep, upload: UploadDep) -> Response:
    """Delete an upload. A task created from it stays."""
    await services.uploads.delete(upload)
    return _answer(204, {})


@router.post("/{upload_id}", status_code=204, include_in_schema=False, response_class=Response, dependencies=SPOKEN)
async def method_override(request: Request, services: ServicesDep, upload: UploadDep) -> Response:
    """Handle PATCH and DELETE for clients that can't send them (``X-HTTP-Method-Override``)."""
    method = request.headers.get("x-http-method-override", "").upper()
    if method == "PATCH":
        return await append_to_upload(request, services, upload)
    if method == "DELETE":
        return await delete_upload(services, upload)
    raise InvalidValue("X-HTTP-Method-Override must be PATCH or DELETE.", "X-HTTP-Method-Override")


def _answer(status: int, headers: Mapping[str, str]) -> Response:
    return Response(status_code=status, headers={"Tus-Resumable": VERSION, **headers})


def _state(upload: Upload) -> dict[str, str]:
    expires = format_datetime(upload.expires_at, usegmt=True)
    return {"Upload-Offset": str(upload.received_bytes), "Upload-Expires": expires}


def _number(request: Request, name: str) -> int:
    text = request.headers.get(name, "")
    if not re.fullmatch(rf"[0-9]{{1,{MAX_SIZE_DIGITS}}}", text):
        raise InvalidValue(f"{name} must be a number of bytes.", name)
    return int(text)


def _checksum(request: Request) -> Checksum | None:
    text = request.headers.get("upload-checksum")
    if text is None:
        return None
    algorithm, _, digest = text.strip().partition(" ")
    if algorithm not in CHECKSUMS:
        raise InvalidValue(f"Upload-Checksum: the algorithms here are {', '.join(CHECKSUMS)}.", "Upload-Checksum")
    try:
        return Checksum(algorithm, b64decode(digest, validate=True))
    except binascii.Error as error:
        raise InvalidValue("Upload-Checksum must be `algorithm base64`.", "Upload-Checksum") from error


def _metadata(text: str) -> dict[str, str]:
    """Parse pairs of a name and a value in Base64. File names are reduced to their last component."""
    if len(text) > MAX_METADATA:
        raise InvalidValue(f"Upload-Metadata is longer than {MAX_METADATA:,} bytes.", "Upload-Metadata")
    pairs: dict[str, str] = {}
    for pair in filter(None, map(str.strip, text.split(","))):
        key, _, value = pair.partition(" ")
        try:
            decoded = b64decode(value, validate=True)
        except binascii.Error as error:
            raise _invalid_metadata() from error
        if not _METADATA_KEY.fullmatch(key) or key in pairs:
            raise _invalid_metadata()
        text = decoded.decode(errors="replace")
        pairs[key] = plain_file_name(text) if key in FILE_NAMES else text
    return pairs


def _invalid_metadata() -> InvalidValue:
    return InvalidValue(
        "Upload-Metadata must be pairs of a name and a Base64 value, each name once.", "Upload-Metadata"
    )


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode("ascii")
