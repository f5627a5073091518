"""What our process and a process that reads a site's pages say to each other, as lines of JSON.

The other side has worked on pages that anybody may have written, so nothing it says is taken on trust: fields that are
not of the right type are dropped, texts are cut.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

MAX_TEXT = 20_000
MAX_SHORT_TEXT = 2_000

HELLO = b"\n"
"""What a process sends once it is confined, with the socket that it connects to where it has a network of its own."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractRequest:
    """What a process is to find out.

    Attributes:
        url: the page.
        extractors: regular expressions of the extractors that may read it; empty: all.
        formats: yt-dlp's expression for which of the recording's formats to take.
        proxy: the only address it may connect to.
        timeout_s: the kernel ends the process after this long.
        max_process_bytes: most memory it may take beyond what is loaded, and the size of its largest file.
        system_authorities: whether TLS trusts the system's authorities (as ``SSL_CERT_FILE`` says) or certifi's.
        cookies: a cookie file's content.
        js_runtime: path of a JavaScript runtime.
        scratch: a folder of its own, for fragments.
        targets: try what is forbidden instead, aimed at these (``confinement.probe.ProbeTargets``).
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
        """As a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> ExtractRequest:
        """The inverse of ``encode``."""
        values = json.loads(line)
        return cls(**values | {"extractors": tuple(values["extractors"])})


@dataclass(frozen=True, slots=True)
class MediaLocation:
    """Where a recording is.

    Attributes:
        url: of it, or of its manifest.
        headers: to ask for it with.
        extension: what the site calls its format.
        direct: it is one file over HTTP; otherwise the process that found it has to put it together.
        size_bytes: if the site says.
        chunk_bytes: the site wants to be asked for at most so much at a time, or sends slowly.
    """

    url: str
    headers: Mapping[str, str]
    extension: str
    direct: bool
    size_bytes: int | None = None
    chunk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ExtractedPage:
    """What a page leads to; ``info`` is yt-dlp's, of which only some fields are sent."""

    info: Mapping[str, Any]
    media: MediaLocation

    def text(self, name: str, limit: int = MAX_SHORT_TEXT) -> str | None:
        """A field that is text, or a number that serves as an id."""
        value = self.info.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return (value[:limit] or None) if isinstance(value, str) else None

    def count(self, name: str) -> int | None:
        """A field that counts something."""
        value = self.info.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None

    def seconds(self, name: str) -> float | None:
        """A field that is a length of time."""
        value = self.info.get(name)
        return float(value) if isinstance(value, int | float) and 0 <= value < float("inf") else None

    def time(self, name: str) -> datetime | None:
        """A field that is a Unix time."""
        value = self.info.get(name)
        try:
            return datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else None
        except (ValueError, OverflowError, OSError):
            return None


@dataclass(frozen=True, slots=True)
class ExtractFailure:
    """Why a page led nowhere.

    Attributes:
        kind: the name of the exception's class, or of a finding of ours.
        message: yt-dlp's, which is not for clients.
        status: of the HTTP answer that caused it.
        expected: yt-dlp knows this case; otherwise its extractor did not understand the page.
        retry_after: what the answer said of when to come again.
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
    """The recording was put together and written."""


Message = ExtractedPage | ExtractFailure | ProbeReport | RecordingWritten


def encode(message: Message) -> bytes:
    """A message as a line."""
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
    """The inverse of ``encode``.

    Raises:
        ValueError: the line is not one of ours.
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
