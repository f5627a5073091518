"""Selection and loading of the engine that the settings name."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pipeline.asr import model_files
from pipeline.asr.engine import Engine
from pipeline.asr.faster_whisper import cuda
from pipeline.settings import AsrSettings

logger = logging.getLogger(__name__)


def available_device(wanted: str = "auto") -> str:
    """Return ``cuda`` if it is requested (or ``auto``) and CTranslate2 can use a GPU, else ``cpu``."""
    if wanted == "cpu":
        return "cpu"
    if cuda.cuda_device_count() > 0:
        return "cuda"
    if wanted == "cuda":
        logger.warning("a GPU was requested, but none can be used here; decoding on the CPU")
    return "cpu"


def load_engine(
    settings: AsrSettings, *, device: str = "auto", max_batch_size: int = 8, cache_dir: Path | None = None
) -> Engine:
    """Load the model, which takes seconds, or minutes if it must be downloaded first.

    Args:
        settings: the model and its options.
        device: ``auto``, ``cpu`` or ``cuda``; without a usable GPU, the CPU is used, with a warning.
        max_batch_size: value of the engine's ``info``.
        cache_dir: folder for joined weights; ``None`` for the user's cache.

    Raises:
        ModelUnavailable: the model can't be found, downloaded or loaded.
    """
    chosen = available_device(device)
    files = model_files.resolve(
        settings.model or model_files.default_model(chosen), cache_dir=cache_dir, download=settings.download
    )
    # Imported late: the import takes seconds, and CTranslate2 must not be loaded before cuBLAS.
    from pipeline.asr.faster_whisper.whisper_engine import FasterWhisperEngine

    return FasterWhisperEngine(
        files,
        device=chosen,
        compute_type=settings.compute_type or model_files.default_compute_type(chosen),
        cpu_threads=settings.cpu_threads or os.cpu_count() or 0,
        short_windows=files.short_windows if settings.window == "auto" else settings.window == "short",
        max_batch_size=max_batch_size,
    )
