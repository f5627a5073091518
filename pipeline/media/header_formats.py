"""Headers of audio formats: the position of the sound, and the numbers that depend on its size.

Supported are formats made of chunks of which one holds the sound (WAV with RF64 and BW64, Sony Wave64, AIFF, CAF), and
AU.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAX_CHUNKS = 100
"""Largest number of chunks that are read; a header with more is left unchanged."""

_UNKNOWN_32 = (0x7EFF_0000, 0x8000_1000)
_UNKNOWN_64 = 1 << 62
_PLACEHOLDER_FROM = 0xFFFF_0000
W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_W64_RIFF = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")


@dataclass(frozen=True, slots=True)
class ChunkLayout:
    """The layout of a format's chunks.

    Attributes:
        head: name and size, as they are packed.
        align: chunks begin at multiples of this number of bytes.
        with_head: whether the size includes the head.
    """

    head: struct.Struct
    align: int = 1
    with_head: bool = False

    def after(self, start: int, size: int) -> int:
        """Return the offset of the chunk behind one that begins at ``start``."""
        end = start + size + (0 if self.with_head else self.head.size)
        return end + -end % self.align


RIFF = ChunkLayout(struct.Struct("<4sI"), align=2)
AIFF = ChunkLayout(struct.Struct(">4sI"), align=2)
CAF = ChunkLayout(struct.Struct(">4sq"))
W64 = ChunkLayout(struct.Struct("<16sQ"), align=8, with_head=True)


@dataclass(frozen=True, slots=True)
class SizeField:
    """A number in the header that depends on the size of the sound.

    Attributes:
        offset: position in the file.
        form: how the number is packed.
        extra: amount by which the number exceeds the size of the sound.
        divisor: bytes of sound in one unit of the number.
    """

    offset: int
    form: struct.Struct
    extra: int = 0
    divisor: int = 1

    def written(self, size: int) -> bytes:
        """Return the field's bytes for a size of the sound; if it does not fit, those of the largest value."""
        largest = (1 << 8 * self.form.size - (1 if self.form.format.endswith("q") else 0)) - 1
        return self.form.pack(min(largest, size // self.divisor + self.extra))


U32LE, U32BE, U64LE, S64BE = (struct.Struct(form) for form in ("<I", ">I", "<Q", ">q"))


@dataclass(frozen=True, slots=True)
class SoundHeader:
    """The position and size of the sound, as the header states them.

    Attributes:
        start: offset of the sound.
        stated: size of the sound in bytes; ``None`` if the header holds a placeholder.
        fields: numbers to change if the size is another.
        chunks: layout of chunks behind the sound; ``None`` if the format has none.
        file_end: end of the file by the stated size of the whole; ``None`` if there is none, or a placeholder.
    """

    start: int
    stated: int | None
    fields: tuple[SizeField, ...]
    chunks: ChunkLayout | None
    file_end: int | None = None

    def includes_more(self, sound_end: int) -> bool:
        """Return whether the size of the whole file includes a chunk behind the sound.

        Then the writer knew where the sound ends. A surplus smaller than a chunk's head does not count, since it is a
        common mistake in counting.
        """
        if self.chunks is None or self.file_end is None:
            return False
        return self.file_end > sound_end + -sound_end % self.chunks.align + self.chunks.head.size


def read_header(file: BinaryIO) -> SoundHeader | None:
    """Return the header of a recording; ``None`` for other formats, and for headers without sound."""
    file.seek(0)
    head = file.read(40)
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _wav(file)
    if head[:16] == _W64_RIFF:
        return _w64(file)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _aiff(file)
    if head[:4] == b"caff":
        return _caf(file)
    if head[:4] == b".snd" and len(head) >= 24:
        return _au(head)
    return None


def _wav(file: BinaryIO) -> SoundHeader | None:
    long_sizes: int | None = None
    for name, start, size in _chunks(file, RIFF, 12):
        if name == b"ds64":
            long_sizes = start
        elif name == b"data" and long_sizes is not None and size == 0xFFFF_FFFF:
            file.seek(long_sizes)
            sizes = file.read(16)
            if len(sizes) < 16:
                return None
            fields = (SizeField(long_sizes, U64LE, extra=start - 8), SizeField(long_sizes + 8, U64LE))
            stated = _stated(*U64LE.unpack_from(sizes, 8))
            return SoundHeader(start, stated, fields, RIFF, _file_end(file, long_sizes, U64LE, extra=8))
        elif name == b"data":
            fields = (SizeField(4, U32LE, extra=start - 8), SizeField(start - 4, U32LE))
            return SoundHeader(start, _stated(size), fields, RIFF, _file_end(file, 4, U32LE, extra=8))
    return None


def _w64(file: BinaryIO) -> SoundHeader | None:
    for name, start, size in _chunks(file, W64, 40):
        if name == b"data" + W64_TAIL:
            head = W64.head.size
            fields = (SizeField(16, U64LE, extra=start), SizeField(start - 8, U64LE, extra=head))
            stated = _stated(size - head) if size > head else None
            return SoundHeader(start, stated, fields, W64, _file_end(file, 16, U64LE))
    return None


def _aiff(file: BinaryIO) -> SoundHeader | None:
    frames: tuple[SizeField, ...] = ()
    for name, start, size in _chunks(file, AIFF, 12):
        if name == b"COMM" and size == 18:  # AIFC's is longer: it may be compressed, and FFmpeg does not need it there
            file.seek(start)
            common = file.read(8)
            if len(common) < 8:
                return None
            channels, _, bits = struct.unpack(">HIH", common)
            frames = (SizeField(start + 2, U32BE, divisor=max(1, channels * ((bits + 7) // 8))),)
        elif name == b"SSND":
            fields = (SizeField(4, U32BE, extra=start), SizeField(start - 4, U32BE, extra=8), *frames)
            stated = _stated(size - 8) if size > 8 else None
            return SoundHeader(start + 8, stated, fields, AIFF, _file_end(file, 4, U32BE, extra=8))
    return None


def _caf(file: BinaryIO) -> SoundHeader | None:
    for name, start, size in _chunks(file, CAF, 8):
        if name == b"data":
            edit_count = 4
            stated = _stated(size - edit_count) if size > edit_count else None
            return SoundHeader(start + edit_count, stated, (SizeField(start - 8, S64BE, extra=edit_count),), CAF)
    return None


def _au(head: bytes) -> SoundHeader:
    start, size = struct.unpack_from(">II", head, 4)
    return SoundHeader(start, _stated(size), (SizeField(8, U32BE),), None)


def _stated(size: int) -> int | None:
    """Return the size in a header, or ``None`` for the placeholders of programs that write to a pipe."""
    unknown = size == 0 or _UNKNOWN_32[0] <= size < _UNKNOWN_32[1]
    unknown = unknown or _PLACEHOLDER_FROM <= size <= 0xFFFF_FFFF or size >= _UNKNOWN_64
    return None if unknown else size


def _file_end(file: BinaryIO, at: int, form: struct.Struct, extra: int = 0) -> int | None:
    """Return the end of the file by the size in its header, which leaves out the first ``extra`` bytes."""
    file.seek(at)
    size = _stated(*form.unpack(file.read(form.size)))
    return None if size is None else size + extra


def _chunks(file: BinaryIO, chunks: ChunkLayout, at: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, the start of the content and the size of each chunk from an offset on."""
    file_bytes = file.seek(0, io.SEEK_END)
    for _ in range(MAX_CHUNKS):
        if at + chunks.head.size > file_bytes:
            return
        file.seek(at)
        head = file.read(chunks.head.size)
        name, size = chunks.head.unpack(head)
        yield name, at + chunks.head.size, size
        following = chunks.after(at, size)
        if following <= at:
            return
        at = following
