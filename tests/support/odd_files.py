"""Files whose headers state the wrong size of the sound, and files that are no recordings."""

from __future__ import annotations

import struct

import numpy as np

from tests.support.recordings import encode, tone

PROSE = "Grüße aus Köln.\nWie geht es Ihnen?\n" * 60
CHINESE = "你好，世界。\n今天天气很好，我们去公园吧。\n" * 60

RAW = {
    "loud, big-endian": tone(1.0, amplitude=30_000).astype(">i2").tobytes(),
    "loud": tone(1.0, amplitude=30_000).tobytes(),
    "quiet": tone(1.0, amplitude=200).tobytes(),
    "quiet, big-endian": tone(1.0, amplitude=200).astype(">i2").tobytes(),
    "of middling level": tone(1.0, amplitude=2000).tobytes(),
    "noise": np.random.default_rng(0).integers(0, 256, 8000, np.uint8).tobytes(),
    "8 bits": (tone(1.0, amplitude=3000) // 256 + 128).astype(np.uint8).tobytes(),
    "8 bits, silence": b"\x80" * 4096,
    "mu-law, silence": b"\xff" * 4096,
    "A-law, silence": b"\xd5" * 4096,
    "A-law, nearly silence": b"\xd5\x55\xd4\x54" * 1024,
    "silence": bytes(4096),
}
"""Sound without a header."""

SOUND = tone(2.0)
SOUND_BYTES = 2 * len(SOUND)

WAV, RF64, W64 = encode(SOUND, "wav"), encode(SOUND, "wav", rf64="always"), encode(SOUND, "w64")
AIFF, AU, CAF = encode(SOUND, "aiff"), encode(SOUND, "au"), encode(SOUND, "caf")

Places = tuple[tuple[int, str, int], ...]
"""Offset, form and surplus of each number that depends on the size of the sound."""

FORMATS: dict[str, tuple[bytes, Places]] = {
    "wav": (WAV, ((4, "<I", WAV.index(b"data")), (WAV.index(b"data") + 4, "<I", 0))),
    "rf64": (RF64, ((20, "<Q", RF64.index(b"data")), (28, "<Q", 0))),
    "w64": (W64, ((16, "<Q", W64.index(b"data") + 24), (W64.index(b"data") + 16, "<Q", 24))),
    "aiff": (AIFF, ((4, ">I", AIFF.index(b"SSND") + 8), (AIFF.index(b"SSND") + 4, ">I", 8))),
    "au": (AU, ((8, ">I", 0),)),
    "caf": (CAF, ((CAF.index(b"data") + 4, ">q", 4),)),
}


def with_sound_size(kind: str, size: int) -> bytes:
    """Return the recording with another size of its sound in the header."""
    content, places = FORMATS[kind]
    changed = bytearray(content)
    for offset, form, extra in places:
        struct.pack_into(form, changed, offset, size + extra)
    return bytes(changed)


def with_number(kind: str, number: int) -> bytes:
    """Return the recording with one number in place of every size in the header."""
    content, places = FORMATS[kind]
    changed = bytearray(content)
    for offset, form, _ in places:
        struct.pack_into(form, changed, offset, number)
    return bytes(changed)
