"""The parent's view of one decoder child: the messages of its result, its read requests, and its end."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pipeline.confinement.fork_server import STATUS
from pipeline.errors import DecoderCrashed, DecodingTooCostly, MediaError
from pipeline.media.sandbox.decoder_messages import ConnectionClosed, MessageKind, Wire, parse_read

logger = logging.getLogger(__name__)

STATUS_TIMEOUT_S = 5.0
"""Time to wait for the report of a child's end."""


@dataclass(slots=True)
class DecoderChild:
    """A child that works on a recording.

    Attributes:
        wire: the connection to the child.
        status: descriptor of the pipe on which the fork server reports the child's end.
        file: the recording, seekable.
        result: content of ``DONE``; known after the last message.
    """

    wire: Wire
    status: int
    file: BinaryIO
    result: Mapping[str, Any] = field(default_factory=dict)

    def messages(self) -> Generator[tuple[MessageKind, bytearray]]:
        """Yield the messages of the child's result in order; reply to its read requests in between.

        Raises:
            MediaError: the child reports an error of the recording, or used more than its limits allow.
            DecoderCrashed: the child died.
        """
        while True:
            with self._report_death():
                kind, payload = self.wire.receive()
            if kind is MessageKind.READ:
                self._send_requested(payload)
                continue
            if kind is MessageKind.DONE:
                self.result = json.loads(payload)
                return
            _raise_reported_error(kind, payload)
            yield kind, payload

    def _send_requested(self, payload: bytearray) -> None:
        with self._report_death():
            offset, size = parse_read(payload)
        self.file.seek(offset)
        content = self.file.read(size)  # outside of the blocks: an error of the storage is not the child's death
        with self._report_death():
            self.wire.send_content(content)

    @contextmanager
    def _report_death(self) -> Iterator[None]:
        """Translate a lost connection in the block into the reason for the child's end."""
        try:
            yield
        except (ConnectionClosed, ConnectionError, TimeoutError) as error:
            raise self._death_error() from error

    def _death_error(self) -> MediaError | DecoderCrashed:
        """Return an error for the child's exit code.

        Without an exit code in time, the child still runs but hangs; it is killed when its status pipe is closed.
        """
        report = _read_within(self.status, STATUS_TIMEOUT_S)
        code = os.waitstatus_to_exitcode(STATUS.unpack(report)[0]) if len(report) == STATUS.size else None
        if code == -signal.SIGXCPU:
            return DecodingTooCostly(
                "Decoding the recording takes more processor time than is allowed for a recording of its size."
            )
        logger.warning("A decoder process died with exit code %s.", code)
        return DecoderCrashed(
            "Decoding the recording crashed. If this happens again, convert the recording and send the result."
        )


def _read_within(descriptor: int, seconds: float) -> bytes:
    readable, _, _ = select.select([descriptor], [], [], seconds)
    return os.read(descriptor, STATUS.size) if readable else b""


def _raise_reported_error(kind: MessageKind, payload: bytearray) -> None:
    if kind is MessageKind.REFUSED:
        error_report = json.loads(payload)
        raise _media_errors_by_code()[error_report["code"]](error_report["message"])
    if kind is MessageKind.DEFECT:
        raise RuntimeError(f"The decoder process failed:\n{payload.decode(errors='replace')}")


def _media_errors_by_code() -> dict[str, type[MediaError]]:
    errors: list[type[MediaError]] = [MediaError, *MediaError.__subclasses__()]
    return {error.code: error for error in errors}
