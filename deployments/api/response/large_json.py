"""Large JSON responses, serialised piece by piece in a worker thread, and spooled to a file above a small size.

A serialiser that receives a transcript of hours in one call holds the interpreter lock for all of it, and its output
stays in memory until the client has read it.
"""

from __future__ import annotations

import errno
import json
import tempfile
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from deployments.api.concurrency.event_loop import PIECE_BYTES, WorkerThreads
from deployments.api.response.task_record import TaskRecord
from pipeline.domain.decoding.transcript import Segment, Transcript, TranscriptInfo
from pipeline.errors import StorageFull

IN_MEMORY_BYTES = 1024 * 1024
"""Largest response that is kept in memory. A larger one is stored on disk until it is sent."""

_SEGMENT: TypeAdapter[Segment] = TypeAdapter(Segment)
_INFO: TypeAdapter[TranscriptInfo] = TypeAdapter(TranscriptInfo)


@dataclass(frozen=True, slots=True)
class JsonItems:
    """The items of a JSON list, each already serialised."""

    each: Iterable[bytes]


Value = bytes | JsonItems | Iterator[bytes]
"""JSON as a whole, as the items of a list, or in pieces."""


def object_pieces(fields: Iterable[tuple[str, Value]]) -> Iterator[bytes]:
    """Yield a JSON object, field by field."""
    separator = b"{"
    for name, value in fields:
        yield separator + json.dumps(name).encode() + b":"
        separator = b","
        if isinstance(value, bytes):
            yield value
        elif isinstance(value, JsonItems):
            yield from _list_pieces(value.each)
        else:
            yield from value
    yield b"{}" if separator == b"{" else b"}"


def _list_pieces(items: Iterable[bytes]) -> Iterator[bytes]:
    separator = b"["
    for item in items:
        yield separator + item
        separator = b","
    yield b"[]" if separator == b"[" else b"]"


def transcript_pieces(transcript: Transcript) -> Iterator[bytes]:
    """Yield a transcript as JSON."""
    return object_pieces(
        (
            ("text", text_json(transcript.text)),
            ("segments", JsonItems(map(_SEGMENT.dump_json, transcript.segments))),
            ("info", _INFO.dump_json(transcript.info)),
        )
    )


def text_json(text: str) -> bytes:
    """Return a text as JSON."""
    return json.dumps(text, ensure_ascii=False).encode()


def record_pieces(record: TaskRecord, result: Transcript | None) -> Iterator[bytes]:
    """Yield a task's record as JSON.

    Args:
        record: the record without the transcript.
        result: the transcript.
    """
    if result is None:
        yield record.model_dump_json().encode()
        return
    names = [*TaskRecord.model_fields]
    place = names.index("result")
    before = record.model_dump_json(include=set(names[:place])).encode()
    after = record.model_dump_json(include=set(names[place + 1 :])).encode()
    yield before[:-1] + b',"result":'
    yield from transcript_pieces(result)
    yield b"," + after[1:]


class Spool:
    """A response that is complete before it is sent, in memory if it is small, else in an unnamed file.

    Attributes:
        size_bytes: its size so far.
    """

    def __init__(self, workers: WorkerThreads) -> None:
        self.size_bytes = 0
        self._workers = workers
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 (closed by close)

    async def write(self, made: Iterator[bytes]) -> None:
        """Append the output of an iterator, in several calls of a worker thread. Raises ``StorageFull``."""
        while await self._workers.run(self._write_some, made):
            pass

    def _write_some(self, made: Iterator[bytes]) -> bool:
        written = 0
        for piece in made:
            self._put(piece)
            written += len(piece)
            if written >= PIECE_BYTES:
                return True
        return False

    def _put(self, piece: bytes) -> None:
        try:
            self._file.write(piece)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull("The server has no space left for temporary files: try again later.", 60) from error
            raise
        self.size_bytes += len(piece)

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Yield the whole content in blocks."""
        self._file.seek(0)
        if self.size_bytes <= IN_MEMORY_BYTES:
            while block := self._file.read(PIECE_BYTES):
                yield block
        else:
            while block := await self._workers.run(self._file.read, PIECE_BYTES):
                yield block

    def close(self) -> None:
        """Delete the content."""
        self._file.close()


async def spooled(workers: WorkerThreads, made: Iterator[bytes]) -> Spool:
    """Return a spool with the complete output of an iterator. If the iterator raises, the spool is deleted."""
    spool = Spool(workers)
    try:
        await spool.write(made)
    except BaseException:
        spool.close()
        raise
    return spool


class SpoolResponse(StreamingResponse):
    """A response from a spool, which is closed afterwards in any case."""

    def __init__(
        self, spool: Spool, media_type: str, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self._spool = spool
        super().__init__(
            spool.blocks(), status, {**(headers or {}), "Content-Length": str(spool.size_bytes)}, media_type=media_type
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._spool.close()
