"""Container formats: those that may be opened, reasons for refusing a file, and checks that demuxers do not make."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Mapping
from typing import BinaryIO

FORMATS = (
    # what people record, edit and download
    "wav,w64,rf64,mp3,aac,ac3,eac3,ac4,dts,dtshd,truehd,mlp,flac,ogg,oga,opus,aiff,caf,au,"
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,asf_o,mpeg,mpegts,mxf,nut,rm,swf,wtv,dv,gxf,"
    # speech and music formats of devices and archives
    "amr,amrnb,amrwb,ape,wv,tta,tak,mpc,mpc8,dsf,iff,oma,sox,voc,nistsphere,gsm,ilbc,g722,g729,qcp,ircam,aa,loas,lc3,"
    "spdif,sbc,bonk,shn,rso,avr,pvf,vqf,xwma,act,dss,ivf,ea,nsv,thp,dhav"
)
"""FFmpeg's names of the allowed demuxers, all of which read only the bytes they are given. Playlists, manifests,
concatenations, image sequences, subtitles, session descriptions and devices are left out, since they can name other
files and hosts."""

INPUT_OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
"""FFmpeg options under which even a demuxer with a security hole can't open a file or a connection."""

ESTIMATED_DURATION = frozenset({"aac", "ac3", "eac3", "dts", "dtshd", "mpeg", "mpegts", "truehd", "mlp", "loas"})
"""Formats without a header. FFmpeg estimates their duration from the bit rate or from the last time stamp."""

_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0", b"8BPS")
_ARCHIVES = (b"PK\3\4", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ")
_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
_OTHER_CODECS = ("cp1252", "gb18030", "shift_jis", "euc_kr")
"""Encodings tried for text that has no byte order mark and is not UTF-8; the first one only if it is mostly ASCII."""
_WIDE = ("utf-16", "utf-32")
_MOSTLY_ASCII = 0.75
_READABLE_SHARE = 0.98
_OGG_PAGE_MAX_BYTES = 65_307
_OGG_END_OF_STREAM = 4
_ASF_HEADER_BYTES = 65_536
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_FLAGS_OFFSET = 88
_ASF_BROADCAST = 1
_MP3_LENGTH_TAGS = (b"Xing", b"Info", b"VBRI")


def is_image(head: bytes) -> bool:
    """Return whether a file with this beginning is an image."""
    return head.startswith(_IMAGES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or b"<svg" in head[:1024]


def refusal(head: bytes) -> str:
    """Return the reason why a file with this beginning could not be opened, as a sentence for the client."""
    if not head:
        return "The file is empty."
    if head[4:8] == b"ftyp":
        return "The MP4 file has no index (its moov box is missing or damaged): it was cut off or never finished."
    if head.startswith(_ARCHIVES):
        return "The file is an archive; send the recording that is in it."
    if head.lstrip()[:7] == b"#EXTM3U" or head.startswith((b"ffconcat", b"[playlist]")):
        return "The file is a playlist; send the recording itself."
    if _is_text(head):
        return "The file is text, not a recording."
    return "The file is not in an audio or video format that can be decoded, or its beginning is damaged."


def is_truncated(format_name: str, file: BinaryIO) -> bool:
    """Return whether the file's bytes show that its end is missing, for formats whose demuxers do not report it."""
    return format_name == "ogg" and not _ogg_ends(file)


def states_duration(format_name: str, file: BinaryIO) -> bool:
    """Return whether the file states its duration; otherwise FFmpeg's number is an estimate."""
    if format_name in _DURATION_CHECKS:
        return _DURATION_CHECKS[format_name](file)
    return format_name not in ESTIMATED_DURATION


def _is_text(head: bytes) -> bool:
    """Return whether the bytes are text.

    Audio without a header may happen to hold no control characters, or begin like UTF-16, so text in an encoding other
    than UTF-8 must also hold spaces or line breaks.
    """
    if marked := next((codec for mark, codec in _BYTE_ORDER_MARKS if head.startswith(mark)), None):
        return _is_readable(head, marked)
    ascii_share = sum(byte < 128 for byte in head) / len(head)
    has_blanks = any(byte in b" \t\r\n" for byte in head)
    return _is_readable(head, "utf-8") or (
        has_blanks and any(_is_readable(head, codec) for codec in _OTHER_CODECS[ascii_share < _MOSTLY_ASCII :])
    )


def _is_readable(head: bytes, codec: str) -> bool:
    """Return whether the bytes decode with this codec to printable characters; they may end within a character."""
    try:
        text = codecs.getincrementaldecoder(codec)().decode(head)
    except UnicodeDecodeError:
        return False
    if not any(character.isascii() or character.isspace() for character in text) and codec.startswith(_WIDE):
        return False  # nearly every pair of bytes is a character of some script, so this proves nothing
    printed = sum(character.isprintable() or character in "\t\n\r\f\x1b\u2028\u3000\xa0" for character in text)
    return printed >= _READABLE_SHARE * len(text)


def _ogg_ends(file: BinaryIO) -> bool:
    """Return whether one of the last pages has the end-of-stream flag (RFC 3533, §6)."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _OGG_PAGE_MAX_BYTES))
    pages = file.read().split(b"OggS")[1:]
    return any(len(page) > 1 and page[1] & _OGG_END_OF_STREAM for page in pages)


def _mp3_states_length(file: BinaryIO) -> bool:
    """Return whether the first frame after any ID3v2 tag holds a count of frames (Xing, Info or VBRI)."""
    file.seek(0)
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3":
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
    file.seek(start)
    first_frames = file.read(4096)
    return any(tag in first_frames for tag in _MP3_LENGTH_TAGS)


def _avi_states_length(file: BinaryIO) -> bool:
    """Return whether the RIFF header holds a size rather than the placeholder of a program that wrote to a pipe."""
    file.seek(4)
    size = int.from_bytes(file.read(4), "little")
    return 0 < size < 0xFFFF_0000


def _asf_states_length(file: BinaryIO) -> bool:
    """Return whether the file properties are valid, which those of a broadcast are not (ASF specification, §3.2)."""
    file.seek(0)
    head = file.read(_ASF_HEADER_BYTES)
    at = head.find(_ASF_FILE_PROPERTIES)
    flags = head[at + _ASF_FLAGS_OFFSET : at + _ASF_FLAGS_OFFSET + 1]
    return at < 0 or not flags or not flags[0] & _ASF_BROADCAST


_DURATION_CHECKS: Mapping[str, Callable[[BinaryIO], bool]] = {
    "mp3": _mp3_states_length,
    "avi": _avi_states_length,
    "asf": _asf_states_length,
}
