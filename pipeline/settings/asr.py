"""Settings of the section ``asr``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.domain.decoding.engine_name import InstalledEngine
from pipeline.settings.section import Section


class AsrSettings(Section):
    """The speech model."""

    engine: InstalledEngine = InstalledEngine.FASTER_WHISPER
    """The engine. `waiting` only simulates the time of decoding: for trials of a cluster without GPUs."""
    model: str | None = None
    """Name (`base`, a Hugging Face id) or folder. Empty: `base` on a CPU, `large-v3-turbo` on a GPU."""
    compute_type: str | None = None
    """CTranslate2 compute type. Empty: `int8` on a CPU, `float16` on a GPU."""
    cpu_threads: int | None = Field(default=None, ge=1)
    """Threads of one CPU replica. Empty: the node's cores."""
    window: Literal["auto", "short", "full"] = "auto"
    """`short` encodes only the length of a batch's longest chunk, `full` always 30 s. `auto`: `short` for the models
    that it was tested with."""
    stall_s: float = Field(default=600.0, gt=0)
    """Longest time of a batch; a replica that takes longer hangs, and is replaced."""
    download: bool = True
    """Download a model that is not on this machine from the Hugging Face hub."""
