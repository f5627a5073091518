"""The jobs of decoder children. Everything here runs in a child, except ``preload_modules``."""

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

from pipeline.confinement.forbidden_acts import try_all
from pipeline.confinement.probe import ProbeTargets
from pipeline.domain.audio.extraction import AudioFormat, ExtractionOptions
from pipeline.domain.audio.sound_options import SoundOptions
from pipeline.errors import DecodingTooCostly, MediaError
from pipeline.media.audio_decoder import AudioDecoder
from pipeline.media.audio_extraction import extract_audio
from pipeline.media.sandbox.decoder_messages import (
    READ_AHEAD_BYTES,
    SECONDS,
    ConnectionClosed,
    MessageKind,
    RemoteSource,
    RemoteTarget,
    Wire,
)

NOT_LOADED = frozenset({"av.__main__", "av.datasets", "encodings.mbcs", "encodings.oem"})
"""Modules that no recording needs: a program, a downloader (11 MB with its imports), and codecs of Windows."""

OUT_OF_MEMORY = "Decoding the recording takes more memory than is allowed."


def run_job(wire: Wire, job: Mapping[str, Any]) -> None:
    """Run a job and send its result or error."""
    try:
        source = io.BufferedReader(RemoteSource(wire, job["size"]), READ_AHEAD_BYTES)
        payload = _JOBS[job["name"]](wire, source, **job["arguments"])
    except (ConnectionClosed, ConnectionError):
        return  # the parent no longer waits for the result
    except MediaError as error:
        kind, payload = MessageKind.REFUSED, {"code": error.code, "message": error.message}
    except MemoryError:
        kind, payload = MessageKind.REFUSED, {"code": DecodingTooCostly.code, "message": OUT_OF_MEMORY}
    except Exception:  # noqa: BLE001 - sent to the parent, which raises it
        wire.send(MessageKind.DEFECT, traceback.format_exc().encode())
        return
    else:
        kind = MessageKind.DONE
    wire.send(kind, json.dumps(payload).encode())


def _decode(wire: Wire, source: Any, max_duration_s: float, sound: dict[str, Any]) -> dict[str, Any]:
    """Send the sound as 16 kHz mono, in native 16-bit samples, one block a message."""
    decoder = AudioDecoder(source, max_duration_s, SoundOptions(**sound))
    for block in decoder.blocks():
        wire.send(MessageKind.DATA, block.tobytes())
    return {"truncated": decoder.truncated, "tracks": [asdict(track) for track in decoder.tracks]}


def _extract(wire: Wire, source: Any, max_duration_s: float, wanted: dict[str, Any]) -> dict[str, Any]:
    """Write the sound to a file in another format; send the progress, so that the parent can stop between steps."""
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
    """Try every forbidden act; return the results by part and name of the act."""
    return try_all(ProbeTargets(**targets))


_JOBS: Mapping[str, Callable[..., dict[str, Any]]] = {"decode": _decode, "extract": _extract, "probe": _probe}


def preload_modules() -> None:
    """Load every module that a child may need, since a confined child can't open files to import one.

    PyAV imports modules when a stream of their kind first occurs, and Python imports one for each text encoding, so all
    of these are imported. Decoding and encoding a moment of silence in every format, and failing once, makes NumPy and
    the standard library import the rest.
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
    """Import every module of a package except those in ``NOT_LOADED``."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name not in NOT_LOADED:
            importlib.import_module(module.name)


def _format_an_error() -> None:
    """Format a traceback, which imports the modules for it."""
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
