"""Runs the process that reads the pages of one link with yt-dlp.

Strangers write these pages. The process therefore has no secrets but the site's cookies, no files but a scratch folder,
no connections but to one proxy, no programs to start but a JavaScript runtime, little memory, and a time limit. The
kernel enforces all of this (``pipeline.confinement``). An audit hook, which Python code cannot remove, limits
connections and programs also on machines whose kernel cannot. The fork server kills the process when its session ends.
"""

from __future__ import annotations

import gc
import io
import mimetypes
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.confinement.forbidden_acts import try_all
from pipeline.confinement.probe import ProbeTargets
from pipeline.crawl.extractor_confinement import confine_process
from pipeline.crawl.extractor_messages import (
    MAX_TEXT,
    ExtractedPage,
    ExtractFailure,
    ExtractRequest,
    MediaLocation,
    Message,
    ProbeReport,
    RecordingWritten,
    encode,
)

SENT_FIELDS = (
    "extractor",
    "extractor_key",
    "id",
    "title",
    "description",
    "uploader",
    "uploader_id",
    "uploader_url",
    "channel",
    "channel_id",
    "channel_url",
    "duration",
    "timestamp",
    "webpage_url",
    "view_count",
    "like_count",
    "comment_count",
    "repost_count",
    "thumbnail",
    "live_status",
)
"""Fields of yt-dlp's result that are sent."""

LIVE = ("is_live", "is_upcoming", "post_live")

WARM_UP_PAGE = "data:text/html,<html><title>A</title><video src='https://host.invalid/a.mp4'></video></html>"
"""A page that needs no connection. Its recording does not exist, but is never requested either."""

SOCKET_TIMEOUT_S = 20.0


def warm_up() -> None:
    """Load yt-dlp and its extractors, and read a page, so that every pattern is compiled before the first fork."""
    import yt_dlp

    mimetypes.init()  # it reads files that a confined process cannot read
    with yt_dlp.YoutubeDL({"logger": _NullLogger(), "cachedir": False, "format": "b"}) as downloader:
        downloader.extract_info(WARM_UP_PAGE, download=False)
    gc.freeze()  # the collector would touch, and so copy, the memory that forks share


def run(session_fd: int, data_fd: int, *, own_network: bool) -> None:
    """Read a request and answer it. Then write the recording to ``data_fd`` if the session asks for it.

    The session asks with a line that holds the number of seconds that writing may take.
    """
    session = socket.socket(fileno=session_fd)
    lines = session.makefile("rb")
    request = ExtractRequest.decode(lines.readline())
    os.dup2(data_fd, 1)
    os.close(data_fd)
    confine_process(request, session, own_network)
    answers = iter([_probe(request)]) if request.targets else _answers(request, lines)
    for message in answers:
        session.sendall(encode(message))


def _probe(request: ExtractRequest) -> ProbeReport:
    return ProbeReport(try_all(ProbeTargets(**request.targets)))


def _answers(request: ExtractRequest, lines: io.BufferedReader) -> Iterator[Message]:
    import yt_dlp

    try:
        with yt_dlp.YoutubeDL(_parameters(request), auto_init=False) as downloader:
            _add_extractors(downloader, request.extractors)
            result = _extract_info(downloader, request.url)
            yield result
            if isinstance(result, ExtractedPage) and not result.media.direct:
                signal.setitimer(signal.ITIMER_REAL, float(lines.readline()))
                downloader.process_info(dict(downloader.chosen_info))
                if not sys.stdout.closed:  # some downloaders close it, others do not flush it
                    sys.stdout.flush()
                yield RecordingWritten()
    except yt_dlp.utils.YoutubeDLError as error:
        yield _to_failure(error)
    except MemoryError:
        yield ExtractFailure("MemoryError", "the page is too large")
    except Exception as error:  # noqa: BLE001 - an extractor may raise anything at a page it does not understand
        yield ExtractFailure(type(error).__name__, str(error))


def _parameters(request: ExtractRequest) -> dict[str, Any]:
    runtime = request.js_runtime
    parameters: dict[str, Any] = {
        "logger": _NullLogger(),
        "quiet": True,
        "noprogress": True,
        "logtostderr": True,
        "color": "never",
        "proxy": request.proxy,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "retries": 3,
        "fragment_retries": 5,
        "extractor_retries": 1,
        "skip_unavailable_fragments": False,
        "noplaylist": True,
        "extract_flat": "in_playlist",
        "playlist_items": "1:2",
        "format": request.formats,
        "cachedir": False,
        "outtmpl": {"default": "-"},
        "hls_prefer_native": True,
        "external_downloader": {"default": "native"},
        "fixup": "never",
        "geo_bypass": False,
        "compat_opts": {"no-certifi"} if request.system_authorities else set(),
        "js_runtimes": {Path(runtime).name: {"path": runtime}} if runtime else {},
        "enable_file_urls": False,
    }
    if request.user_agent:
        parameters["http_headers"] = {"User-Agent": request.user_agent}
    if request.cookies:
        parameters["cookiefile"] = io.StringIO(request.cookies)
    return parameters


def _add_extractors(downloader: Any, names: tuple[str, ...]) -> None:
    """Add the extractors of these names, or all. yt-dlp's ``allowed_extractors`` takes as long as reading a page."""
    from yt_dlp.extractor import gen_extractor_classes

    wanted = re.compile("|".join(names) or ".*")
    for extractor in gen_extractor_classes():
        if extractor._ENABLED and wanted.fullmatch(extractor.IE_NAME.lower()):  # noqa: SLF001 - as yt-dlp does
            downloader.add_info_extractor(extractor)


def _extract_info(downloader: Any, url: str) -> Message:
    info = downloader.extract_info(url, download=False)
    entries = list(info.get("entries") or ()) if info.get("_type") in ("playlist", "multi_video") else None
    if entries is not None:
        if len(entries) != 1:
            return ExtractFailure("Playlist", f"{len(entries)} entries")
        info = _single_entry(downloader, entries[0])
    if info.get("live_status") in LIVE or info.get("is_live"):
        return ExtractFailure("Live", str(info.get("live_status")))
    if not info.get("url"):
        return ExtractFailure("NoFormats", "no single format")
    downloader.chosen_info = info
    return ExtractedPage(
        {name: _truncate(info[name]) for name in SENT_FIELDS if name in info}, _location(downloader, info)
    )


def _truncate(value: object) -> object:
    """Return a text cut to ``MAX_TEXT`` characters, a number as it is, and ``None`` for anything else."""
    if isinstance(value, str):
        return value[:MAX_TEXT]
    return value if isinstance(value, int | float) else None


def _single_entry(downloader: Any, entry: dict[str, Any]) -> dict[str, Any]:
    """Return the result for the only entry of a list: yt-dlp returns a page with one recording as such a list."""
    if entry.get("_type") in ("url", "url_transparent"):
        info: dict[str, Any] = downloader.extract_info(entry["url"], download=False, ie_key=entry.get("ie_key"))
        return info
    return entry


def _location(downloader: Any, info: Mapping[str, Any]) -> MediaLocation:
    headers = {str(name): str(value) for name, value in (info.get("http_headers") or {}).items()}
    if cookies := downloader.cookiejar.get_cookie_header(info["url"]):
        headers["Cookie"] = cookies
    options = info.get("downloader_options") or {}
    return MediaLocation(
        url=info["url"],
        headers=headers,
        extension=str(info.get("ext") or ""),
        direct=info.get("protocol") in ("http", "https") and not info.get("impersonate"),
        size_bytes=info.get("filesize"),
        chunk_bytes=options.get("http_chunk_size"),
    )


def _to_failure(error: Any) -> ExtractFailure:
    original = error.exc_info[1] if getattr(error, "exc_info", None) and error.exc_info[1] else error
    cause = getattr(original, "cause", None)
    status = getattr(cause, "status", None) or getattr(original, "status", None)
    response = getattr(cause, "response", None) or getattr(original, "response", None)
    network = getattr(type(cause), "__module__", "") == "yt_dlp.networking.exceptions"
    return ExtractFailure(
        kind=type(cause if network else original).__name__,
        message=str(getattr(original, "orig_msg", None) or getattr(original, "msg", None) or original),
        status=status if isinstance(status, int) else None,
        expected=bool(getattr(original, "expected", False)),
        retry_after=(response.get_header("Retry-After") or "") if response is not None else "",
    )


class _NullLogger:
    """A logger that drops yt-dlp's log, because its exceptions hold the failures."""

    def debug(self, message: str) -> None:
        """Drop the message."""

    def info(self, message: str) -> None:
        """Drop the message."""

    def warning(self, message: str) -> None:
        """Drop the message."""

    def error(self, message: str) -> None:
        """Drop the message."""
