import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.asr.faster_whisper import cuda


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed ``nvidia-cublas-cu12``, with files that are no libraries."""
    library = tmp_path / "nvidia" / "cublas" / "lib"
    library.mkdir(parents=True)
    for name in ("libcublas.so.12", "libcublasLt.so.12"):
        (library / name).write_bytes(b"")
    for package in (tmp_path / "nvidia", tmp_path / "nvidia" / "cublas"):
        (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "nvidia"]:
        monkeypatch.delitem(sys.modules, name)
    yield library
    for name in [name for name in sys.modules if name.split(".")[0] == "nvidia"]:
        del sys.modules[name]


def test_both_libraries_are_loaded_by_path_dependency_first(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(ctypes, "CDLL", lambda path, mode: loaded.append((path, mode)))
    assert cuda.preload_cublas()
    assert loaded == [(str(wheel / name), ctypes.RTLD_GLOBAL) for name in ("libcublasLt.so.12", "libcublas.so.12")]


def test_without_the_wheel_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "cublas_library", lambda: None)
    assert not cuda.preload_cublas()


def test_a_wheel_of_another_version_is_not_used(wheel: Path) -> None:
    (wheel / "libcublas.so.12").rename(wheel / "libcublas.so.13")
    assert cuda.cublas_library() is None
