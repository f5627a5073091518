"""Our side: children are asked for, questioned, and outlived."""

from __future__ import annotations

import io
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import numpy as np

from pipeline.confinement.fork_server import STATUS
from pipeline.confinement.probe import targets
from pipeline.domain.audio.extraction import ExtractionOptions
from pipeline.domain.audio.sound_options import DEFAULT_SOUND_OPTIONS, SoundOptions
from pipeline.domain.audio.spans import to_samples
from pipeline.domain.audio.speech import Samples
from pipeline.domain.audio.tracks import Track
from pipeline.domain.confinement_level import Confinement, confinement_of
from pipeline.errors import DecoderCrashed, DecodingTooCostly, MediaError, OutputTooLarge
from pipeline.media.sandbox.decoder_messages import SECONDS, ChildGone, MessageKind, Wire, parse_read, parse_write

logger = logging.getLogger(__name__)

CHILD_TIMEOUT_S = 300.0
"""A child that says nothing for so long hangs; one that works is ended by its limit of processor time before."""

_MEBIBYTE = 1024 * 1024
_PASSED_VARIABLES = ("LD_LIBRARY_PATH", "LANG", "TZ")
"""Of the environment; the rest may hold secrets."""


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What a child may use.

    Attributes:
        cpu_s: processor seconds for any recording.
        cpu_s_per_mib: as many more for each MiB of it.
        memory_bytes: memory beyond what the codecs take to be loaded.
    """

    cpu_s: float = 120.0
    cpu_s_per_mib: float = 20.0
    memory_bytes: int = 512 * _MEBIBYTE

    def cpu_s_for(self, size_bytes: int) -> int:
        """Processor seconds for a recording of that size."""
        return int(self.cpu_s + self.cpu_s_per_mib * size_bytes / _MEBIBYTE)


class Sandbox:
    """Runs each recording's decoder in a process of its own.

    The process they are forked from is started with the first use, or by ``start``, and again should it have died.
    Methods may be called from several threads.

    Args:
        limits: of one child.
        niceness: added to ours, for what is done in the background.
    """

    def __init__(self, limits: SandboxLimits, niceness: int = 0) -> None:
        self._limits = limits
        self._niceness = niceness
        self._lock = threading.Lock()
        self._zygote: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Starts the process that children are forked from, and does not wait for it (half a second)."""
        with self._lock:
            self._running_control()

    def close(self) -> None:
        """Ends it and every child."""
        with self._lock:
            self._stop()

    def confinement(self) -> Confinement:
        """Have a child try what is forbidden, and return what holds.

        Raises:
            DecoderCrashed: the child ended before it could answer.
        """
        with (
            targets(self._limits.memory_bytes) as aims,
            self.child("probe", io.BytesIO(), targets=aims.encode()) as child,
        ):
            for _ in child.messages():
                pass
            return confinement_of(child.said)

    @contextmanager
    def child(self, name: str, file: BinaryIO, **arguments: Any) -> Iterator[SandboxChild]:
        """A child at work on a recording, until the block is left.

        Args:
            name: what it does, one of ``jobs``.
            file: the recording, seekable; read from the thread that iterates over the child's messages.
            arguments: of the job, as JSON has them.
        """
        size = file.seek(0, io.SEEK_END)
        job = {
            "name": name,
            "size": size,
            "arguments": arguments,
            "cpu_s": self._limits.cpu_s_for(size),
            "memory_bytes": self._limits.memory_bytes,
        }
        with ExitStack() as stack:
            ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
            status, report = os.pipe()
            stack.callback(os.close, status)
            try:
                self._request_child(job, theirs.fileno(), report)
            finally:
                os.close(report)
                theirs.close()
            ours.settimeout(CHILD_TIMEOUT_S)
            yield SandboxChild(Wire(ours), status, file)

    def _request_child(self, job: Mapping[str, Any], *descriptors: int) -> None:
        message = json.dumps(job).encode()
        with self._lock:
            try:
                socket.send_fds(self._running_control(), [message], descriptors)
            except OSError:  # it has died since
                self._stop()
                socket.send_fds(self._running_control(), [message], descriptors)

    def _running_control(self) -> socket.socket:
        if self._control is None or self._zygote is None or self._zygote.poll() is not None:
            self._stop()
            self._zygote, self._control = _start_fork_server(self._niceness)
        return self._control

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._zygote is not None:
            self._zygote.kill()
            self._zygote.wait()
        self._zygote = self._control = None


def _start_fork_server(niceness: int) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "pipeline.media.sandbox.decoder_fork_server", str(theirs.fileno()), str(niceness)],
            pass_fds=[theirs.fileno()],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    return process, ours


@dataclass(slots=True)
class SandboxChild:
    """A child that works on ``file``; ``status`` is where its end is reported. ``said`` is known after its end."""

    wire: Wire
    status: int
    file: BinaryIO
    said: Mapping[str, Any] = field(default_factory=dict)

    def messages(self) -> Generator[tuple[MessageKind, bytearray]]:
        """What the child sends of its result, in order; its questions are answered on the way.

        Raises:
            MediaError: what the child says of the recording, or that it took more than it may.
            DecoderCrashed: it died.
        """
        while True:
            with self._reported_death():
                kind, payload = self.wire.receive()
            if kind is MessageKind.READ:
                self._answer(payload)
                continue
            if kind is MessageKind.DONE:
                self.said = json.loads(payload)
                return
            _raise_reported_error(kind, payload)
            yield kind, payload

    def _answer(self, payload: bytearray) -> None:
        with self._reported_death():
            offset, size = parse_read(payload)
        self.file.seek(offset)
        content = self.file.read(size)  # an error of the storage's is no death of the child's
        with self._reported_death():
            self.wire.answer(content)

    @contextmanager
    def _reported_death(self) -> Iterator[None]:
        try:
            yield
        except (ChildGone, ConnectionError, TimeoutError) as error:
            raise self._death_error() from error

    def _death_error(self) -> MediaError | DecoderCrashed:
        """How it ended. It may live on, hanging; then it is killed when its pipe is closed."""
        report = _read_within(self.status, 5.0)
        code = os.waitstatus_to_exitcode(STATUS.unpack(report)[0]) if len(report) == STATUS.size else None
        if code == -signal.SIGXCPU:
            return DecodingTooCostly("Decoding the recording takes more processor time than one of its size may.")
        logger.warning("a decoder process died: exit code %s", code)
        return DecoderCrashed(
            "Decoding the recording crashed. If it does so again, convert the recording and send that."
        )


def _read_within(descriptor: int, seconds: float) -> bytes:
    readable, _, _ = select.select([descriptor], [], [], seconds)
    return os.read(descriptor, STATUS.size) if readable else b""


def _raise_reported_error(kind: MessageKind, payload: bytearray) -> None:
    if kind is MessageKind.REFUSED:
        error_report = json.loads(payload)
        raise _media_errors_by_code()[error_report["code"]](error_report["message"])
    if kind is MessageKind.DEFECT:
        raise RuntimeError(f"the decoder process failed:\n{payload.decode(errors='replace')}")


def _media_errors_by_code() -> dict[str, type[MediaError]]:
    errors: list[type[MediaError]] = [MediaError, *MediaError.__subclasses__()]
    return {error.code: error for error in errors}


class SandboxedDecoder:
    """``decode.AudioDecoder`` in a child; see there."""

    def __init__(
        self, sandbox: Sandbox, file: BinaryIO, max_duration_s: float, sound: SoundOptions = DEFAULT_SOUND_OPTIONS
    ) -> None:
        self._sandbox = sandbox
        self._file = file
        self._max_duration_s = max_duration_s
        self._sound = sound
        self.truncated = False
        self.tracks: tuple[Track, ...] = ()

    def blocks(self) -> Generator[Samples]:
        """The recording as 16 kHz mono, in blocks.

        Raises:
            MediaError: it can't be transcribed.
            DecoderCrashed: its decoder died.
        """
        left = to_samples(self._max_duration_s)
        arguments = {"max_duration_s": self._max_duration_s, "sound": asdict(self._sound)}
        with self._sandbox.child("decode", self._file, **arguments) as child:
            with closing(child.messages()) as messages:
                for _, payload in messages:
                    block = np.frombuffer(payload, np.int16)
                    left -= len(block)
                    _check_size(left)
                    yield block
            self.truncated = bool(child.said.get("truncated"))
            self.tracks = tuple(Track(**track) for track in child.said.get("tracks", ()))


def extract_in(
    sandbox: Sandbox,
    source: BinaryIO,
    target: BinaryIO,
    wanted: ExtractionOptions,
    *,
    max_duration_s: float,
    max_bytes: int,
) -> Generator[float]:
    """``extract.extract_audio`` in a child; see there. Yields the seconds decoded, as it gets on.

    Raises:
        MediaError: there is no sound to be taken out, or more of it than ``max_duration_s`` or ``max_bytes``.
        DecoderCrashed: the child died.
    """
    arguments = {"max_duration_s": max_duration_s, "wanted": asdict(wanted)}
    with sandbox.child("extract", source, **arguments) as child, closing(child.messages()) as messages:
        decoded_s = 0.0
        for kind, payload in messages:
            if kind is MessageKind.DATA and len(payload) == SECONDS.size:
                decoded_s = min(max(decoded_s, SECONDS.unpack(payload)[0]), max_duration_s)
            offset, content = parse_write(payload) if kind is MessageKind.WRITE else (0, memoryview(b""))
            if offset + len(content) > max_bytes:
                raise OutputTooLarge(f"The extracted sound would be larger than the limit of {max_bytes:,} bytes.")
            target.seek(offset)
            target.write(content)
            yield decoded_s


def _check_size(left: int) -> None:
    """Children keep the limit themselves; one that does not is no longer ours."""
    if left < 0:
        raise DecoderCrashed("The process that decoded the recording sent more sound than it may.")
