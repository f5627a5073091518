"""Recognises a recording's format by its first bytes, and names its file."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from pipeline.domain.text.file_names import without_invisible
from pipeline.domain.text.graphemes import shortened

HEAD_BYTES = 4096
"""Bytes at the start of a file that are kept to recognise its format."""

MAX_NAME = 120

_PATTERNS: tuple[tuple[str, int, bytes], ...] = (
    ("flac", 0, b"fLaC"),
    ("ogg", 0, b"OggS"),
    ("mp3", 0, b"ID3"),
    ("mid", 0, b"MThd"),
    ("wav", 8, b"WAVE"),
    ("avi", 8, b"AVI "),
    ("aiff", 8, b"AIFF"),
    ("webm", 0, b"\x1a\x45\xdf\xa3"),
    ("m4a", 4, b"ftypM4A"),
    ("mov", 4, b"ftypqt"),
    ("mp4", 4, b"ftyp"),
    ("flv", 0, b"FLV"),
    ("amr", 0, b"#!AMR"),
    ("au", 0, b".snd"),
    ("wma", 0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
)
"""Extension, offset and bytes of common recording formats (WHATWG MIME Sniffing, §6.2, and similar ones)."""

_WEB_PAGE = re.compile(
    rb"\s*(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|body|title|script|meta)\b", re.IGNORECASE | re.S
)
"""The beginning of a web page (WHATWG MIME Sniffing, §7.1; only the common tags)."""

_EXTENSION = re.compile(r"[a-z0-9]{1,8}")
_RESERVED = set('<>:"/\\|?*')


def extension_of(head: bytes) -> str | None:
    """Return the extension of a file with these first bytes, or ``None`` if they match no known format."""
    for extension, offset, pattern in _PATTERNS:
        if head[offset : offset + len(pattern)] == pattern:
            return extension
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return "aac" if head[1] & 0x06 == 0 else "mp3"  # layer 0 is ADTS
    if len(head) > 188 and head[0] == head[188] == 0x47:
        return "ts"
    return None


def is_page(head: bytes) -> bool:
    """Return whether these are the first bytes of a web page."""
    return _WEB_PAGE.match(head.removeprefix(b"\xef\xbb\xbf")) is not None


def file_name(title: str, head: bytes, claimed: str = "") -> str:
    """Return a name that is safe in any file system and any header, with the extension that fits the bytes.

    Args:
        title: the recording's title on the site, or the name in the URL.
        head: the file's first bytes.
        claimed: the extension that the source claims, used if the bytes match no known format.
    """
    extension = extension_of(head) or (claimed.lower() if _EXTENSION.fullmatch(claimed.lower()) else "")
    text = "".join(" " if character in _RESERVED else character for character in without_invisible(title, instead=" "))
    stem = shortened(" ".join(text.split()).strip(". "), MAX_NAME).strip(". ") or "recording"
    return f"{stem}.{extension}" if extension else stem


def name_in_url(url: str) -> tuple[str, str]:
    """Return the stem and the extension of the file name in a URL's path; either may be empty."""
    name = unquote(PurePosixPath(urlsplit(url).path).name, errors="replace")
    stem, dot, extension = name.rpartition(".")
    return (stem, extension) if dot and _EXTENSION.fullmatch(extension.lower()) else (name, "")
