"""Files that want a decoder to open something else, or to do more than it should."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.support.recordings import encode, flac_of_silence, silence

BOMB = flac_of_silence(14_000, 8000)
"""200 KB of FLAC that unfold to 32 hours."""

_NESTED = (b"moov", b"trak", b"mdia", b"minf", b"dinf")


def playlists(target: Path) -> dict[str, bytes]:
    """Text in every form that names another file, here ``target``."""
    names = {"path": str(target), "file": target.as_uri(), "subfile": f"subfile,,start,0,end,0,,:{target}"}
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    forms = {f"hls of a {kind}": hls.format(name) for kind, name in names.items()}
    forms |= {
        "hls with a key": hls.format("a.ts").replace(
            "#EXTINF", f'#EXT-X-KEY:METHOD=AES-128,URI="{target.as_uri()}"\n#EXTINF'
        ),
        "hls of data": hls.format("data:audio/wav;base64,UklGRgAAAABXQVZF"),
        "hls over http": hls.format("http://127.0.0.1:9/a.ts"),
        "hls with a map": f'#EXTM3U\n#EXT-X-MAP:URI="{target.as_uri()}"\n#EXTINF:9,\na.ts\n',
        "ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
        "concat without a head": f"file '{target}'\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" '
        'profiles="urn:mpeg:dash:profile:isoff-main:2011">'
        f"<Period><AdaptationSet><Representation><BaseURL>{target.as_uri()}</BaseURL></Representation></AdaptationSet>"
        "</Period></MPD>",
        "smooth streaming": '<SmoothStreamingMedia MajorVersion="2"><StreamIndex Type="audio" '
        f'Url="{target.as_uri()}"/></SmoothStreamingMedia>',
        "asx": f'<asx version="3.0"><entry><ref href="{target.as_uri()}"/></entry></asx>',
        "asf reference": f"[Reference]\r\nRef1={target.as_uri()}\r\n",
        "pls": f"[playlist]\nFile1={target}\nNumberOfEntries=1\n",
        "cue sheet": f'FILE "{target}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<image xlink:href="{target.as_uri()}"/></svg>',
        "ffmetadata": f";FFMETADATA1\ntitle={target}\n",
        "lavfi": f"amovie={target}",
        "avisynth": f'WavSource("{target}")',
        "vapoursynth": f"#!vspipe\nopen('{target}')",
        "subtitles of vobsub": f"# VobSub index file, v7\nid: en, index: 0\nalt: {target}\n",
        "image sequence": "%03d.png",
        "a link": str(target),
    }
    return {name: form.encode() for name, form in forms.items()}


def disguises(playlist: bytes) -> dict[str, bytes]:
    """Return playlists behind the first bytes of other formats."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("list.m3u8", playlist)
    ftyp = struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0)
    return {
        "a zip": archive.getvalue(),
        "a zip in an mp4": ftyp + struct.pack(">I4s", 8 + len(archive.getvalue()), b"mdat") + archive.getvalue(),
        "a playlist in an mp4": ftyp + struct.pack(">I4s", 8 + len(playlist), b"mdat") + playlist,
        "a playlist after a tag": b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10) + playlist,
        "a playlist after a mark": b"\xef\xbb\xbf" + playlist,
        "a playlist in 16 bits": b"\xff\xfe" + playlist.decode().encode("utf-16-le"),
    }


def external_track(target: Path) -> bytes:
    """Make a QuickTime file whose sound lies in another file (a ``dref`` entry of type ``alis`` with the path)."""
    path = str(target).encode()
    alias = bytearray(150)
    alias[4:8] = struct.pack(">HH", 150, 2)
    alias[10 : 10 + 1 + 4] = b"\4disk"
    name = target.name.encode()[:63]
    alias[50 : 51 + len(name)] = bytes([len(name)]) + name
    tags = struct.pack(">HH", 2, len(path)) + path + bytes(len(path) % 2)
    tags += struct.pack(">HH", 18, len(path)) + path + bytes(len(path) % 2) + struct.pack(">hH", -1, 0)
    entry = struct.pack(">I4sI", 12 + len(alias) + len(tags), b"alis", 0) + alias + tags
    return _with_box(encode(silence(2.0), "mp4"), b"dref", lambda _: struct.pack(">II", 0, 1) + entry)


def _with_box(content: bytes, wanted: bytes, changed: Callable[[bytes], bytes]) -> bytes:
    """Return the boxes with the content of one of them replaced."""
    boxes = []
    while content:
        size, kind = struct.unpack(">I4s", content[:8])
        body, content = content[8:size], content[size:]
        if kind == wanted:
            body = changed(body)
        elif kind in _NESTED:
            body = _with_box(body, wanted, changed)
        boxes.append(struct.pack(">I4s", 8 + len(body), kind) + body)
    return b"".join(boxes)
