"""The GPU, as far as CTranslate2 goes: which there are, and the library it needs to use them."""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path

CUBLAS = "libcublas.so.12"
"""What CTranslate2 4.8 opens by this name when it first multiplies on a GPU."""


def preload_cublas() -> bool:
    """Loads cuBLAS from the ``nvidia-cublas-cu12`` wheel, so that CTranslate2 finds it without ``LD_LIBRARY_PATH``.

    To be called before ``ctranslate2`` is imported.

    Returns:
        Whether the wheel is installed; without it, a system-wide cuBLAS may still be found.
    """
    library = cublas_library()
    if library is None:
        return False
    # cuBLAS needs its sibling, which lies in the same folder and is not on the search path either.
    for name in ("libcublasLt.so.12", CUBLAS):
        ctypes.CDLL(str(library.with_name(name)), mode=ctypes.RTLD_GLOBAL)
    return True


def cublas_library() -> Path | None:
    """The wheel's ``libcublas.so.12``, if it is installed."""
    try:
        spec = find_spec("nvidia.cublas")
    except ModuleNotFoundError:
        return None
    folders = spec.submodule_search_locations if spec else None
    candidates = (Path(folder) / "lib" / CUBLAS for folder in folders or ())
    return next((path for path in candidates if path.is_file()), None)


def cuda_device_count() -> int:
    """GPUs that CTranslate2 can use; 0 where there is none or no driver."""
    preload_cublas()
    import ctranslate2

    return int(ctranslate2.get_cuda_device_count())
