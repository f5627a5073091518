"""Choosing and loading the engine that the settings ask for."""

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
    """``cuda`` where it is wanted (or ``auto``) and CTranslate2 can use a GPU, else ``cpu``."""
    if wanted == "cpu":
        return "cpu"
    if cuda.cuda_device_count() > 0:
        return "cuda"
    if wanted == "cuda":
        logger.warning("no GPU can be used here, although one was asked for; decoding on the CPU")
    return "cpu"


def load_engine(
    settings: AsrSettings, *, device: str = "auto", max_batch_size: int = 8, cache_dir: Path | None = None
) -> Engine:
    """Loads the model; takes seconds, or minutes where it must be downloaded first.

    Args:
        settings: which model, and how to run it.
        device: ``auto``, ``cpu`` or ``cuda``; a GPU that isn't there is replaced by the CPU, with a warning.
        max_batch_size: told in the engine's ``info``.
        cache_dir: where joined weights are kept; ``None`` for the user's cache.

    Raises:
        ModelUnavailable: the model can't be had or loaded.
    """
    chosen = available_device(device)
    files = model_files.resolve(
        settings.model or model_files.default_model(chosen), cache_dir=cache_dir, download=settings.download
    )
    # Imported late: it takes seconds, and CTranslate2 must not be loaded before cuBLAS.
    from pipeline.asr.faster_whisper.whisper_engine import FasterWhisperEngine

    return FasterWhisperEngine(
        files,
        device=chosen,
        compute_type=settings.compute_type or model_files.default_compute_type(chosen),
        cpu_threads=settings.cpu_threads or os.cpu_count() or 0,
        short_windows=files.short_windows if settings.window == "auto" else settings.window == "short",
        max_batch_size=max_batch_size,
    )
