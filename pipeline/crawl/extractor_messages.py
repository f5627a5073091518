"""Defines the messages between a session and its process that reads pages, as lines of JSON.

The process works on pages that anybody may have written, so its messages are not trusted: fields of the wrong type are
dropped, and long texts are cut.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

MAX_TEXT = 20_000
MAX_SHORT_TEXT = 2_000

CONFINED_MESSAGE = b"\n"
"""The message of a process that is confined now. With it comes the listening socket that the process will connect to,
if it has a network of its own."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractRequest:
    """A page for a process to read.

    Attributes:
        url: address of the page.
        extractors: regular expressions of the extractors that may read it; empty: all.
        formats: yt-dlp's expression that chooses one of the recording's formats.
        proxy: the only address that the process may connect to.
        timeout_s: seconds after which the kernel ends the process.
        max_process_bytes: most memory that the process may use beyond what is loaded, and the size of its largest file.
        scratch: the process's own folder, for fragments.
        system_authorities: whether TLS trusts the system's authorities (``SSL_CERT_FILE``) instead of certifi's.
        cookies: content of a cookie file.
        user_agent: value of the ``User-Agent`` header; ``None``: yt-dlp's.
        js_runtime: path of a JavaScript runtime.
        targets: of forbidden acts to try instead of reading the page (``confinement.probe.ProbeTargets``).
    """

    url: str
    extractors: tuple[str, ...]
    formats: str
    proxy: str
    timeout_s: float
    max_process_bytes: int
    scratch: str
    system_authorities: bool = False
    cookies: str | None = field(default=None, repr=False)
    user_agent: str | None = None
    js_runtime: str | None = None
    targets: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the request as a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> ExtractRequest:
        """Parse a line of ``encode``."""
        values = json.loads(line)
        return cls(**values | {"extractors": tuple(values["extractors"])})


@dataclass(frozen=True, slots=True)
class MediaLocation:
    """The location of a recording.

    Attributes:
        url: of the recording, or of its manifest.
        headers: to send with each request for it.
        extension: the file extension that the site states.
        direct: whether it is one file over HTTP; otherwise the process that read the page must assemble it.
        size_bytes: size of the file, if the site states it.
        chunk_bytes: largest range to request at once; the site throttles larger ones. ``None``: any.
    """

    url: str
    headers: Mapping[str, str]
    extension: str
    direct: bool
    size_bytes: int | None = None
    chunk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ExtractedPage:
    """The recording that a page leads to; ``info`` holds some of the fields of yt-dlp's result."""

    info: Mapping[str, Any]
    media: MediaLocation

    def text(self, name: str, limit: int = MAX_SHORT_TEXT) -> str | None:
        """Return a field that is a text, or an id that is a number; ``None`` if it is neither."""
        value = self.info.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return (value[:limit] or None) if isinstance(value, str) else None

    def count(self, name: str) -> int | None:
        """Return a field that is a count, or ``None``."""
        value = self.info.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None

    def seconds(self, name: str) -> float | None:
        """Return a field that is a duration in seconds, or ``None``."""
        value = self.info.get(name)
        return float(value) if isinstance(value, int | float) and 0 <= value < float("inf") else None

    def time(self, name: str) -> datetime | None:
        """Return a field that is a Unix time, or ``None``."""
        value = self.info.get(name)
        try:
            return datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else None
        except (ValueError, OverflowError, OSError):
            return None


@dataclass(frozen=True, slots=True)
class ExtractFailure:
    """The reason why a page led to no recording.

    Attributes:
        kind: name of the exception's class, or of a case that the service distinguishes, such as ``Playlist``.
        message: yt-dlp's message, which clients never see.
        status: of the HTTP response that caused the failure.
        expected: whether yt-dlp knows this case; otherwise its extractor did not understand the page.
        retry_after: the response's ``Retry-After`` header, or empty.
    """

    kind: str
    message: str
    status: int | None = None
    expected: bool = False
    retry_after: str = ""


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """The results of forbidden acts, by part of ``Confinement`` and name of the act."""

    results: Mapping[str, Mapping[str, str]]


class RecordingWritten:
    """The message that the recording was assembled and written completely."""


Message = ExtractedPage | ExtractFailure | ProbeReport | RecordingWritten


def encode(message: Message) -> bytes:
    """Return a message as a line."""
    match message:
        case ExtractedPage(info, media):
            value: dict[str, Any] = {"found": {"info": dict(info), "media": asdict(media)}}
        case ExtractFailure():
            value = {"trouble": asdict(message)}
        case ProbeReport(results):
            value = {"probed": results}
        case _:
            value = {"done": {}}
    return json.dumps(value).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Parse a line of ``encode``.

    Raises:
        ValueError: the line is not a message.
    """
    value = _mapping(json.loads(line))
    if "found" in value:
        found = _mapping(value["found"])
        return ExtractedPage(_mapping(found.get("info")), _location(_mapping(found.get("media"))))
    if "trouble" in value:
        return _to_failure(_mapping(value["trouble"]))
    if "probed" in value:
        return ProbeReport({part: _texts(acts) for part, acts in _mapping(value["probed"]).items()})
    if "done" in value:
        return RecordingWritten()
    raise ValueError("not a message")


def _location(value: Mapping[str, Any]) -> MediaLocation:
    return MediaLocation(
        url=_of_type(value.get("url"), str, ""),
        headers=_texts(value.get("headers")),
        extension=_of_type(value.get("extension"), str, ""),
        direct=_of_type(value.get("direct"), bool, False),
        size_bytes=_positive(value.get("size_bytes")),
        chunk_bytes=_positive(value.get("chunk_bytes")),
    )


def _to_failure(value: Mapping[str, Any]) -> ExtractFailure:
    return ExtractFailure(
        kind=_of_type(value.get("kind"), str, ""),
        message=_of_type(value.get("message"), str, "")[:MAX_SHORT_TEXT],
        status=_positive(value.get("status")),
        expected=_of_type(value.get("expected"), bool, False),
        retry_after=_of_type(value.get("retry_after"), str, "")[:100],
    )


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not a message")
    return value


def _texts(value: object) -> dict[str, str]:
    return {name: text for name, text in _mapping(value).items() if isinstance(text, str)}


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _of_type(value: object, kind: type[T], default: T) -> T:
    return value if isinstance(value, kind) else default
