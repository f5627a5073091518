"""Names of engines: those of requests and task records, which need not be installed, and those of the settings."""

from __future__ import annotations

from enum import StrEnum


class EngineName(StrEnum):
    """The name of an engine."""

    FASTER_WHISPER = "faster_whisper"
    OPENAI_WHISPER = "openai_whisper"


class InstalledEngine(StrEnum):
    """The name of an engine that this service can load (``asr.engine``).

    ``WAITING`` is no choice of a client: it only simulates the time of decoding.
    """

    FASTER_WHISPER = EngineName.FASTER_WHISPER
    WAITING = "waiting"
