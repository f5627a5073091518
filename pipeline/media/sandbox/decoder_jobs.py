"""What children do. Everything here runs in a child, but for ``preload_modules``, which loads what they will need."""

from __future__ import annotations

import encodings
import importlib
import io
import json
import pkgutil
import traceback
import wave
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import av
import numpy as np

from pipeline.confinement.probe import ProbeTargets, attempt_all
from pipeline.domain.audio.extraction import AudioFormat, ExtractionOptions
from pipeline.domain.audio.sound_options import SoundOptions
from pipeline.errors import DecodingTooCostly, MediaError
from pipeline.media.audio_decoder import AudioDecoder
from pipeline.media.audio_extraction import extract_audio
from pipeline.media.sandbox.decoder_messages import (
    READ_AHEAD_BYTES,
    SECONDS,
    ChildGone,
    MessageKind,
    RemoteSource,
    RemoteTarget,
    Wire,
)

NOT_LOADED = frozenset({"av.__main__", "av.datasets", "encodings.mbcs", "encodings.oem"})
"""Modules that no recording needs: a program, one that downloads (11 MB with all that it loads), and Windows'."""

OUT_OF_MEMORY = "Decoding the recording takes more memory than it may."


def perform(wire: Wire, job: Mapping[str, Any]) -> None:
    """Does a job and says how it ended."""
    try:
        source = io.BufferedReader(RemoteSource(wire, job["size"]), READ_AHEAD_BYTES)
        payload = _JOBS[job["name"]](wire, source, **job["arguments"])
    except (ChildGone, ConnectionError):
        return  # nobody waits for it any more
    except MediaError as error:
        kind, payload = MessageKind.REFUSED, {"code": error.code, "message": error.message}
    except MemoryError:
        kind, payload = MessageKind.REFUSED, {"code": DecodingTooCostly.code, "message": OUT_OF_MEMORY}
    except Exception:  # noqa: BLE001 - the parent raises it
        wire.send(MessageKind.DEFECT, traceback.format_exc().encode())
        return
    else:
        kind = MessageKind.DONE
    wire.send(kind, json.dumps(payload).encode())


def _decode(wire: Wire, source: Any, max_duration_s: float, sound: dict[str, Any]) -> dict[str, Any]:
    """Sends the sound as 16 kHz mono, native 16-bit samples, a block a message."""
    decoder = AudioDecoder(source, max_duration_s, SoundOptions(**sound))
    for block in decoder.blocks():
        wire.send(MessageKind.DATA, block.tobytes())
    return {"truncated": decoder.truncated, "tracks": [asdict(track) for track in decoder.tracks]}


def _extract(wire: Wire, source: Any, max_duration_s: float, wanted: dict[str, Any]) -> dict[str, Any]:
    """Writes the sound as a file of its own; how far it is is sent as well, so that somebody may call it off."""
    target = io.BufferedWriter(RemoteTarget(wire), READ_AHEAD_BYTES)
    extraction_options = ExtractionOptions(**wanted | {"output_format": AudioFormat(wanted["output_format"])})
    extract_audio(
        source,
        target,
        extraction_options,
        max_duration_s,
        tick=lambda decoded_s: wire.send(MessageKind.DATA, SECONDS.pack(decoded_s)),
    )
    target.flush()
    return {}


def _probe(wire: Wire, source: Any, targets: dict[str, Any]) -> dict[str, Any]:
    """Try what is forbidden; the results are by part and name of the act."""
    return attempt_all(ProbeTargets(**targets))


_JOBS: Mapping[str, Callable[..., dict[str, Any]]] = {"decode": _decode, "extract": _extract, "probe": _probe}


def preload_modules() -> None:
    """Load every module that a child may need, since a child can't open a file to load one any more.

    PyAV imports a module when a stream of its kind is first met, and Python one for each codec of text, so all of them
    are loaded. What else NumPy and the standard library load late is reached by decoding and encoding a moment of
    silence in every format, and by failing once.
    """
    _import_package(av)
    _import_package(encodings)
    silence = io.BytesIO()
    extract_audio(_wav_of_silence(), silence, ExtractionOptions(output_format=AudioFormat.WAV), 60.0)
    for output_format in AudioFormat:
        target = io.BytesIO()
        silence.seek(0)
        extract_audio(silence, target, ExtractionOptions(output_format=output_format), 60.0)
        target.seek(0)
        for _ in AudioDecoder(target, 60.0).blocks():
            pass
    with suppress(MediaError):
        next(AudioDecoder(io.BytesIO(b"#"), 1.0).blocks())
    _format_an_error()


def _import_package(package: Any) -> None:
    """Import every module of a package that may be needed."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name not in NOT_LOADED:
            importlib.import_module(module.name)


def _format_an_error() -> None:
    """Format a traceback: how one is printed is loaded with the first."""
    try:
        raise ValueError("no error")
    except ValueError:
        traceback.format_exc()


def _wav_of_silence() -> io.BytesIO:
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.zeros(8000, np.int16).tobytes())
    target.seek(0)
    return target
