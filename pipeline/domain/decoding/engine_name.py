"""Names of engines: those that a request may have, and those that the settings may have."""

from __future__ import annotations

from enum import StrEnum


class EngineName(StrEnum):
    """The name of an engine in a request and in a task's record. A known engine need not be installed."""

    FASTER_WHISPER = "faster_whisper"
    OPENAI_WHISPER = "openai_whisper"


class InstalledEngine(StrEnum):
    """The name of an engine that this service can load (``asr.engine``).

    ``WAITING`` is no choice of a client: it only simulates the time of decoding.
    """

    FASTER_WHISPER = EngineName.FASTER_WHISPER
    WAITING = "waiting"
