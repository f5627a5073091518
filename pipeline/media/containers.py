"""Which files are opened at all, and what their bytes say where the demuxer doesn't: refusals and broken ends."""

from __future__ import annotations

import io
from typing import BinaryIO

FORMATS = (
    # what people record, edit and download
    "wav,w64,rf64,mp3,aac,ac3,eac3,ac4,dts,dtshd,truehd,mlp,flac,ogg,oga,opus,aiff,caf,au,"
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,asf_o,mpeg,mpegts,mxf,nut,rm,swf,wtv,dv,gxf,"
    # speech and music formats of devices and archives
    "amr,amrnb,amrwb,ape,wv,tta,tak,mpc,mpc8,dsf,iff,oma,sox,voc,nistsphere,gsm,ilbc,g722,g729,qcp,ircam,aa,loas,lc3,"
    "spdif,sbc,bonk,shn,rso,avr,pvf,vqf,xwma,act,dss,ivf,ea,nsv,thp,dhav"
)
"""Demuxers that read nothing but the bytes they are given. Playlists, manifests, concatenations, image sequences,
subtitles, session descriptions and devices are not among them: they can name other files and hosts."""

INPUT_OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
"""For FFmpeg: even a demuxer with a hole in it can't open a file or a connection."""

ESTIMATED_DURATION = frozenset({"aac", "ac3", "eac3", "dts", "dtshd", "mpeg", "mpegts", "truehd", "mlp", "loas"})
"""Streams without a header: FFmpeg guesses how long they are from the bit rate or from the last time stamp."""

_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0", b"8BPS")
_ARCHIVES = (b"PK\3\4", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ")
_OGG_PAGE_MAX_BYTES = 65_307
_OGG_END_OF_STREAM = 4
_MP3_LENGTH_TAGS = (b"Xing", b"Info", b"VBRI")


def is_image(head: bytes) -> bool:
    """Whether a file that begins like this is a picture."""
    return head.startswith(_IMAGES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or b"<svg" in head[:1024]


def refusal(head: bytes) -> str:
    """Why a file that begins like this could not be opened, as a sentence for the person who sent it."""
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


def breaks_off(format_name: str, file: BinaryIO) -> bool:
    """Whether the bytes themselves show that the end is missing, for formats whose demuxers don't tell."""
    return format_name == "ogg" and not _ogg_ends(file)


def states_duration(format_name: str, file: BinaryIO) -> bool:
    """Whether the file says how long it is; otherwise FFmpeg's number is a guess."""
    if format_name == "mp3":
        return _mp3_states_length(file)
    return format_name not in ESTIMATED_DURATION


def _is_text(head: bytes) -> bool:
    control = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
    return control == 0 or head.startswith((b"\xff\xfe", b"\xfe\xff"))


def _ogg_ends(file: BinaryIO) -> bool:
    """Whether one of the last pages bears the end-of-stream flag (RFC 3533, §6)."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _OGG_PAGE_MAX_BYTES))
    pages = file.read().split(b"OggS")[1:]
    return any(len(page) > 1 and page[1] & _OGG_END_OF_STREAM for page in pages)


def _mp3_states_length(file: BinaryIO) -> bool:
    """Whether the first frame carries a count of frames (Xing, Info or VBRI), after any ID3v2 tag."""
    file.seek(0)
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3":
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
    file.seek(start)
    first_frames = file.read(4096)
    return any(tag in first_frames for tag in _MP3_LENGTH_TAGS)
