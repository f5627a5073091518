"""GPUs for CTranslate2: their number, and the library that it needs to use them."""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path

CUBLAS = "libcublas.so.12"
"""Library that CTranslate2 4.8 opens by this name at its first matrix product on a GPU."""


def preload_cublas() -> bool:
    """Load cuBLAS from the ``nvidia-cublas-cu12`` wheel, so that CTranslate2 finds it without ``LD_LIBRARY_PATH``.

    Call it before ``ctranslate2`` is imported.

    Returns:
        ``True`` if the wheel is installed; without it, CTranslate2 may still find a system-wide cuBLAS.
    """
    library = cublas_library()
    if library is None:
        return False
    # cuBLAS needs cuBLASLt, which is in the same folder and not on the search path either.
    for name in ("libcublasLt.so.12", CUBLAS):
        ctypes.CDLL(str(library.with_name(name)), mode=ctypes.RTLD_GLOBAL)
    return True


def cublas_library() -> Path | None:
    """Return the path of the wheel's ``libcublas.so.12``; ``None`` if it is not installed."""
    try:
        spec = find_spec("nvidia.cublas")
    except ModuleNotFoundError:
        return None
    folders = spec.submodule_search_locations if spec else None
    candidates = (Path(folder) / "lib" / CUBLAS for folder in folders or ())
    return next((path for path in candidates if path.is_file()), None)


def cuda_device_count() -> int:
    """Count the GPUs that CTranslate2 can use; 0 without a GPU or without a driver."""
    preload_cublas()
    import ctranslate2

    return int(ctranslate2.get_cuda_device_count())
