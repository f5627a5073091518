"""What a file's header says of the size of its sound, put right where it can't be so.

A program that writes into a pipe can't go back to write sizes into the header, so it leaves placeholders there. Others
write the size of what they meant to record, or count wrongly. FFmpeg believes the header: it stops early, finds no
sound, or takes the recording for one that breaks off. So the sizes are read here first, compared with the bytes there
are, and FFmpeg is shown the right ones.

The formats are those that consist of chunks with one chunk of sound (WAV with RF64 and BW64, Sony Wave64, AIFF, CAF),
AU, and Creative Voice files as sox writes them. What follows the sound is told from more sound by its form: chunks that
reach to the end of the file, or a tag.
Where the size of the whole file includes more than the sound, that of the sound is believed.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

TAIL_BYTES = 256 * 1024
"""So far before the end of the file chunks are looked for behind sound of unknown size."""

HEAD_BYTES = 24
"""The longest head of a chunk or tag."""

MAX_CHUNKS = 100
"""Headers of more chunks are left as they are."""

MAX_CANDIDATES = 50
"""Places behind sound of unknown size that are tried: in a tail of random bytes, fewer look like a chunk or tag."""

ID3V1_BYTES = 128
"""Length of an ID3v1 tag, which ends with the file (https://id3.org/ID3v1)."""

_VOC_MAGIC = b"Creative Voice File\x1a"
_VOC_HEAD_BYTES = 26
_VOC_TERMINATOR = b"\0"
_VOC_MISCOUNTED = {b"\1": 0, b"\x09": 8}
"""By type of block, how many bytes sox leaves out of its size (src/voc.c)."""

_UNKNOWN_32 = (0x7EFF_0000, 0x8000_1000)
_UNKNOWN_64 = 1 << 62
_PLACEHOLDER_FROM = 0xFFFF_0000
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_W64_RIFF = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")
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
"""Names of chunks, four characters each, that stand behind the sound."""

_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
"""How tags begin that are appended to a file of any format."""


@dataclass(frozen=True, slots=True)
class ChunkLayout:
    """How a format writes the chunks it consists of.

    Attributes:
        head: name and size.
        align: chunks begin at multiples of it.
        with_head: whether the size includes the head.
    """

    head: struct.Struct
    align: int = 1
    with_head: bool = False

    def after(self, start: int, size: int) -> int:
        """Return where the next chunk begins after one that begins at ``start``."""
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
        offset: where it stands.
        form: how it is written.
        extra: how much it is more than the size of the sound.
        divisor: bytes of sound that it counts as one.
    """

    offset: int
    form: struct.Struct
    extra: int = 0
    divisor: int = 1

    def written(self, size: int) -> bytes:
        """Return the field for a size of the sound; one that is too large for it is said to be unknown."""
        largest = (1 << 8 * self.form.size - (1 if self.form.format.endswith("q") else 0)) - 1
        return self.form.pack(min(largest, size // self.divisor + self.extra))


U32LE, U32BE, U64LE, S64BE = (struct.Struct(form) for form in ("<I", ">I", "<Q", ">q"))


@dataclass(frozen=True, slots=True)
class SoundHeader:
    """What a header says of the sound.

    Attributes:
        start: where the sound begins.
        stated: its size in bytes; ``None`` where the header holds a placeholder.
        fields: what must be written for another size.
        chunks: how chunks behind the sound would look; ``None`` where the format has none.
        file_end: where the file ends by the size of the whole; ``None`` where there is none, or a placeholder.
    """

    start: int
    stated: int | None
    fields: tuple[SizeField, ...]
    chunks: ChunkLayout | None
    file_end: int | None = None

    def includes_more(self, sound_end: int) -> bool:
        """Return whether the size of the whole includes a chunk behind the sound.

        Then the writer knew where the sound ends. Less than the head of a chunk is a common mistake in counting.
        """
        if self.chunks is None or self.file_end is None:
            return False
        return self.file_end > sound_end + -sound_end % self.chunks.align + self.chunks.head.size


@dataclass(frozen=True, slots=True)
class SizedRecording:
    """A recording whose header agrees with its bytes.

    Attributes:
        file: the recording, as FFmpeg should see it.
        complete: whether all of the sound is there that the header states; ``None`` where it is for FFmpeg to say.
    """

    file: BinaryIO
    complete: bool | None


def correct_sizes(file: BinaryIO) -> SizedRecording:
    """Return a recording with the sizes in its header put right, at its beginning."""
    if voc := _miscounted_voc(file):
        return SizedRecording(voc, complete=True)
    header = _header(file)
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
    elif header.chunks is None:  # without chunks, FFmpeg takes all that follows for sound
        file = _PatchedFile(file, {}, header.start + stated)  # type: ignore[assignment]
    file.seek(0)
    return SizedRecording(file, complete=True)


def _header(file: BinaryIO) -> SoundHeader | None:
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


def _miscounted_voc(file: BinaryIO) -> BinaryIO | None:
    """Return a complete Creative Voice file of sox's with the right size; ``None`` for any other.

    Sox writes one block of sound and a terminator. Its size for a block of 16 bits is 8 too small, so that a demuxer
    takes the last samples for another block; and sizes beyond the field's 24 bits wrap around. FFmpeg takes a size of 0
    for all that is left.
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
        if name == b"data" + _W64_TAIL:
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
    """Return the size in a header, or ``None`` for the placeholders of programs that write into a pipe."""
    unknown = size == 0 or _UNKNOWN_32[0] <= size < _UNKNOWN_32[1]
    unknown = unknown or _PLACEHOLDER_FROM <= size <= 0xFFFF_FFFF or size >= _UNKNOWN_64
    return None if unknown else size


def _file_end(file: BinaryIO, at: int, form: struct.Struct, extra: int = 0) -> int | None:
    """Return where the file ends by its size in the header, which counts all but some ``extra`` bytes."""
    file.seek(at)
    size = _stated(*form.unpack(file.read(form.size)))
    return None if size is None else size + extra


def _chunks(file: BinaryIO, chunks: ChunkLayout, at: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start of the content, and size of each chunk from a place on."""
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


def _ends_at(file: BinaryIO, header: SoundHeader, end: int, file_bytes: int) -> bool:
    """Return whether the sound ends where the header says: nothing follows, or what does is counted or no sound."""
    if file_bytes - end < 8 or header.includes_more(end):
        return True
    starts = {end} if header.chunks is None else {end, end + -end % header.chunks.align}
    return any(_is_known(file, at) or _reach_end(file, header.chunks, at, file_bytes) for at in sorted(starts))


def _end_of_sound(file: BinaryIO, header: SoundHeader, file_bytes: int) -> int:
    """Return where the sound ends for all that can be seen: at the chunks or tags that reach to the end, or there."""
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
    return head.startswith(_TAGS) or head[:4] in _KNOWN_CHUNKS or head[4:] == _W64_TAIL


def _reach_end(file: BinaryIO, chunks: ChunkLayout | None, at: int, file_bytes: int) -> bool:
    """Return whether chunks and tags from here on reach just to the end of the file, but for a filling byte."""
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
    """Return where a chunk or tag that begins like this ends; a chunk of AIFF's is called ``ID3`` too."""
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
    is_name = name[4:] in (b"", _W64_TAIL) and all(32 <= byte < 127 for byte in name[:4])
    return chunks.after(at, size) if is_name and size >= 0 else None


class _PatchedFile:
    """A file some of whose bytes are others, up to an end."""

    def __init__(self, file: BinaryIO, patches: Mapping[int, bytes], end: int) -> None:
        self._file = file
        self._patches = patches
        self._end = end
        self.tell = file.tell

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place; return it."""
        return self._file.seek(*((self._end + offset, io.SEEK_SET) if whence == io.SEEK_END else (offset, whence)))

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        start = self._file.tell()
        left = max(0, self._end - start)
        content = self._file.read(left if size < 0 else min(size, left))
        for offset, patch in self._patches.items():
            first, last = max(start, offset), min(start + len(content), offset + len(patch))
            if first < last:
                middle = patch[first - offset : last - offset]
                content = content[: first - start] + middle + content[last - start :]
        return content
