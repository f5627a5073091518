"""Repair of headers that state a wrong size of the sound.

A program that writes to a pipe can't go back to write sizes into the header, so it leaves placeholders there. Others
write the size that they meant to record, or count wrongly. FFmpeg trusts the header: it stops early, finds no sound, or
reports a recording as truncated. So this module compares the sizes in the header with the actual bytes and shows FFmpeg
a file with the right sizes.

Supported are the formats of ``header_formats``, and Creative Voice files as sox writes them. Data behind the sound is
told from more sound by its form: chunks that reach to the end of the file, or a tag. If the size of the whole file
includes more than the sound, the stated size of the sound is trusted.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.media.header_formats import MAX_CHUNKS, W64_TAIL, ChunkLayout, SoundHeader, read_header

TAIL_BYTES = 256 * 1024
"""Size of the end of the file that is searched for chunks behind sound of unknown size."""

HEAD_BYTES = 24
"""Length of the longest head of a chunk or tag."""

MAX_CANDIDATES = 50
"""Largest number of places that are tried for the end of sound of unknown size. In random bytes, fewer
places look like a chunk or tag."""

ID3V1_BYTES = 128
"""Length of an ID3v1 tag, which ends with the file (https://id3.org/ID3v1)."""

_VOC_MAGIC = b"Creative Voice File\x1a"
_VOC_HEAD_BYTES = 26
_VOC_TERMINATOR = b"\0"
_VOC_MISCOUNTED = {b"\1": 0, b"\x09": 8}
"""Number of bytes that sox leaves out of a block's size, by type of block (src/voc.c)."""

_RIFF_CHUNKS = (
    "LIST id3  ID3  bext cue  smpl iXML axml _PMX fact PEAK PAD  JUNK junk FLLR DISP inst acid cart afsp plst note"
)
_MORE_RIFF_CHUNKS = "labl umid minf elm1 regn ovwf strc levl SAUR LGWV"
_AIFF_CHUNKS = "NAME AUTH (c)  ANNO COMT MARK INST MIDI AESD APPL CHAN"
_CAF_CHUNKS = "info free pakt mark chan kuki strg uuid"
_KNOWN_CHUNKS = frozenset(
    names[at : at + 4].ljust(4).encode()
    for names in (_RIFF_CHUNKS, _MORE_RIFF_CHUNKS, _AIFF_CHUNKS, _CAF_CHUNKS)
    for at in range(0, len(names), 5)
)
"""Names of chunks that stand behind the sound, four characters each."""

_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
"""First bytes of tags that are appended to files of any format."""


@dataclass(frozen=True, slots=True)
class SizedRecording:
    """A recording whose header agrees with its bytes.

    Attributes:
        file: the recording, to be given to FFmpeg.
        complete: whether the file holds all the sound that the header states; ``None`` if only FFmpeg can tell.
    """

    file: BinaryIO
    complete: bool | None


def correct_sizes(file: BinaryIO) -> SizedRecording:
    """Return a recording whose header states the actual sizes, positioned at its beginning."""
    if voc := _miscounted_voc(file):
        return SizedRecording(voc, complete=True)
    header = read_header(file)
    if header is None:
        file.seek(0)
        return SizedRecording(file, None)
    file_bytes = file.seek(0, io.SEEK_END)
    stated = header.stated
    if stated is not None and header.start + stated > file_bytes:
        file.seek(0)
        return SizedRecording(file, complete=False)
    if stated is None or not _ends_at(file, header, header.start + stated, file_bytes):
        end = _end_of_sound(file, header, file_bytes)
        patches = {field.offset: field.written(end - header.start) for field in header.fields}
        file = _PatchedFile(file, patches, end)  # type: ignore[assignment]
    elif header.chunks is None:  # without chunks, FFmpeg takes all bytes that follow for sound
        file = _PatchedFile(file, {}, header.start + stated)  # type: ignore[assignment]
    file.seek(0)
    return SizedRecording(file, complete=True)


def _miscounted_voc(file: BinaryIO) -> BinaryIO | None:
    """Return a complete Creative Voice file by sox with a repaired size; ``None`` for any other file.

    Sox writes one block of sound and a terminator. The size that it writes for a block of 16 bits is 8 too small, so
    that a demuxer takes the last samples for another block. Sizes beyond the field's 24 bits wrap around. FFmpeg reads
    a size of 0 as all bytes that are left, so the size is replaced with 0.
    """
    file.seek(0)
    head = file.read(_VOC_HEAD_BYTES)
    if not head.startswith(_VOC_MAGIC) or len(head) < _VOC_HEAD_BYTES:
        return None
    block = int.from_bytes(head[20:22], "little")
    file.seek(block)
    kind, size = file.read(1), int.from_bytes(file.read(3), "little")
    last = file.seek(-1, io.SEEK_END)
    sound_bytes = last - (block + 4)
    if file.read(1) != _VOC_TERMINATOR or kind not in _VOC_MISCOUNTED or sound_bytes <= size:
        return None
    if (sound_bytes - size) % (1 << 24) != _VOC_MISCOUNTED[kind]:
        return None
    patched = _PatchedFile(file, {block + 1: bytes(3)}, last)
    patched.seek(0)
    return patched  # type: ignore[return-value]


def _ends_at(file: BinaryIO, header: SoundHeader, end: int, file_bytes: int) -> bool:
    """Return whether the sound ends where the header says.

    It does if nothing follows, if the size of the whole file includes the rest, or if the rest is chunks or tags.
    """
    if file_bytes - end < 8 or header.includes_more(end):
        return True
    starts = {end} if header.chunks is None else {end, end + -end % header.chunks.align}
    return any(_is_known(file, at) or _reach_end(file, header.chunks, at, file_bytes) for at in sorted(starts))


def _end_of_sound(file: BinaryIO, header: SoundHeader, file_bytes: int) -> int:
    """Return the end of sound of unknown size: the first chunk or tag of those that reach to the end, or that end."""
    begin = max(header.start + (header.stated or 0), file_bytes - TAIL_BYTES)
    file.seek(begin)
    tail = file.read(TAIL_BYTES)
    names = _TAGS if header.chunks is None else (*_TAGS, *_KNOWN_CHUNKS)
    positions = sorted(begin + match.start() for name in names for match in re.finditer(re.escape(name), tail))
    candidates = [*positions[:MAX_CANDIDATES], *(at for at in positions if at == file_bytes - ID3V1_BYTES)]
    return next((at for at in candidates if _reach_end(file, header.chunks, at, file_bytes)), file_bytes)


def _is_known(file: BinaryIO, at: int) -> bool:
    file.seek(at)
    head = file.read(16)
    return head.startswith(_TAGS) or head[:4] in _KNOWN_CHUNKS or head[4:] == W64_TAIL


def _reach_end(file: BinaryIO, chunks: ChunkLayout | None, at: int, file_bytes: int) -> bool:
    """Return whether chunks and tags from this offset on reach exactly to the end of the file, except for padding."""
    for _ in range(MAX_CHUNKS):
        if at >= file_bytes:
            return at <= file_bytes + 8
        file.seek(at)
        head = file.read(HEAD_BYTES)
        following = _after(head, chunks, at)
        if following is None or following <= at:
            return False
        at = following
    return False


def _after(head: bytes, chunks: ChunkLayout | None, at: int) -> int | None:
    """Return the end of a chunk or tag with this beginning; ``ID3`` may begin either, since AIFF has such a chunk."""
    chunk = _after_chunk(head, chunks, at) if chunks else None
    return chunk if head[:4] in _KNOWN_CHUNKS else _after_tag(head, at) or chunk


def _after_tag(head: bytes, at: int) -> int | None:
    if head.startswith(b"TAG"):
        return at + ID3V1_BYTES
    if head.startswith(b"ID3") and len(head) >= 10 and max(head[6:10]) < 128:
        return at + 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return None


def _after_chunk(head: bytes, chunks: ChunkLayout, at: int) -> int | None:
    if len(head) < chunks.head.size:
        return None
    name, size = chunks.head.unpack(head[: chunks.head.size])
    is_name = name[4:] in (b"", W64_TAIL) and all(32 <= byte < 127 for byte in name[:4])
    return chunks.after(at, size) if is_name and size >= 0 else None


class _PatchedFile:
    """A view of a file in which some bytes are replaced, and which ends at a given offset."""

    def __init__(self, file: BinaryIO, patches: Mapping[int, bytes], end: int) -> None:
        self._file = file
        self._patches = patches
        self._end = end
        self.tell = file.tell

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset and return it."""
        return self._file.seek(*((self._end + offset, io.SEEK_SET) if whence == io.SEEK_END else (offset, whence)))

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, with the replacements."""
        start = self._file.tell()
        left = max(0, self._end - start)
        content = self._file.read(left if size < 0 else min(size, left))
        for offset, patch in self._patches.items():
            first, last = max(start, offset), min(start + len(content), offset + len(patch))
            if first < last:
                middle = patch[first - offset : last - offset]
                content = content[: first - start] + middle + content[last - start :]
        return content
