"""Extraction of an uploaded recording's audio as a file in another format."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import closing
from typing import BinaryIO

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from deployments.api.dependencies import ClientDep, ServicesDep
from deployments.api.middleware.backpressure import until_read
from deployments.api.request.body import RequestBody
from deployments.api.request.caller import client_name
from deployments.api.request.forms import Form, refuse_unknown
from deployments.api.request.multipart import read_form
from deployments.api.response.envelope import error_responses
from deployments.api.response.request_echo import note_params
from deployments.api.services import Services
from pipeline.domain.audio.extraction import MEDIA_TYPES, AudioFormat, ExtractionOptions
from pipeline.errors import InvalidValue, SourceConflict, SourceMissing, UploadTooLarge
from pipeline.usecases.tasks.extraction_charge import charge_while_extracting, refuse_extraction

router = APIRouter(prefix="/api/whisper", tags=["audio"])

EXTRACTION_FORM = Form(ExtractionOptions)
_FILE = {"type": "string", "format": "binary", "description": "The recording, audio or video."}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "/extract_audio",
    response_class=Response,
    responses={
        200: {"description": "The audio", "content": dict.fromkeys(MEDIA_TYPES.values(), _BINARY)},
        **error_responses(400, 408, 413, 415, 422),
    },
    openapi_extra={
        "parameters": EXTRACTION_FORM.parameters(),
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"file": _FILE, **EXTRACTION_FORM.properties()},
                        "required": ["file"],
                    }
                }
            },
        },
    },
)
async def extract_audio(request: Request, services: ServicesDep, client: ClientDep) -> Response:
    """Extract the audio of a recording, with the chosen format, sample rate and bit depth.

    Channels are kept. The response begins when the extraction is complete, so it is either the whole audio or an error.
    """
    # The place is held until the response has been read, since its file stays on disk until then.
    query = dict(request.query_params)
    _parse(query)  # refuse invalid parameters before the upload
    name = client_name(request)
    await refuse_extraction(services.store, client, services.clock)
    await until_read(request).enter_async_context(services.extractor.place(name))
    source, form = await _receive(request, services)
    with closing(source):
        note_params(request, form)
        refuse_unknown(form, EXTRACTION_FORM.names)
        wanted = _parse(query | {name: value for name, value in form.items() if value.strip()})
        size_bytes = source.seek(0, io.SEEK_END)
        async with charge_while_extracting(services.store, client, services.clock, size_bytes) as progress:
            extracted = await services.extractor.extract(source, wanted, name, progress)
    return _FileResponse(services, extracted, wanted.output_format)


def _parse(values: dict[str, str]) -> ExtractionOptions:
    wanted = ExtractionOptions(**EXTRACTION_FORM.parse(values))
    if wanted.output_format is AudioFormat.FLAC and wanted.bit_depth == 1:
        raise InvalidValue("bit_depth: flac supports 2, 3 or 4 bytes per sample; wav also supports 1.", "bit_depth")
    return wanted


async def _receive(request: Request, services: Services) -> tuple[BinaryIO, dict[str, str]]:
    """Receive the form, and return the recording as a file and the other fields."""
    limit_bytes = services.settings.media.max_upload_bytes
    received: list[BinaryIO] = []

    async def sink(data: AsyncIterator[bytes], _: str | None) -> None:
        if received:
            raise SourceConflict("Two files were sent: send one.")
        received.append(await services.extractor.receive(_limited(data, limit_bytes)))

    try:
        form = await read_form(request, RequestBody(request), sink, limit_bytes)
        if not received:
            raise SourceMissing("No recording was sent: put it in a part named file.")
    except BaseException:
        for file in received:
            file.close()
        raise
    return received[0], form


async def _limited(data: AsyncIterator[bytes], limit_bytes: int) -> AsyncIterator[bytes]:
    size_bytes = 0
    async for block in data:
        size_bytes += len(block)
        if size_bytes > limit_bytes:
            raise UploadTooLarge(
                f"The file is too large: {size_bytes:,} bytes have arrived and the limit is {limit_bytes:,}."
            )
        yield block


class _FileResponse(StreamingResponse):
    """A response from a temporary file, which is closed afterwards in any case."""

    def __init__(self, services: Services, file: BinaryIO, output_format: AudioFormat) -> None:
        self._file = file
        super().__init__(
            services.extractor.blocks(file),
            media_type=MEDIA_TYPES[output_format],
            headers={
                "Content-Length": str(file.seek(0, io.SEEK_END)),
                "Content-Disposition": f'attachment; filename="extracted_audio.{output_format}"',
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()
