from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import RayError

from deployments.cluster.shared_storage import (
    OTHER_DATABASE,
    OTHER_STORE,
    _check_node,
    _ensure_storage_id,
    _problems,
    verify_shared_storage,
    verify_storage,
)
from deployments.wiring import media_store
from pipeline.errors import ConfigurationError
from pipeline.settings import MediaSettings, Settings
from pipeline.testing.memory_media import MemoryMediaStore


def settings(folder: Path) -> Settings:
    return Settings(data_dir=folder, media=MediaSettings(url=folder.as_uri()))


async def test_a_store_keeps_its_mark() -> None:
    media = MemoryMediaStore()
    mark = await _ensure_storage_id(media)
    assert await _ensure_storage_id(media) == mark
    verify_storage(media, mark)


async def test_a_node_with_another_folder_is_refused() -> None:
    mark = await _ensure_storage_id(MemoryMediaStore())
    other = MemoryMediaStore()
    await _ensure_storage_id(other)
    for media in (other, MemoryMediaStore()):
        with pytest.raises(ConfigurationError, match="does not see the media store"):
            verify_storage(media, mark)


def test_without_an_id_the_store_is_not_read() -> None:
    verify_storage(MemoryMediaStore(), None)


def test_a_node_says_what_it_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.cluster.shared_storage.alive_nodes", lambda: [{}])
    here, elsewhere = settings(tmp_path / "here"), settings(tmp_path / "elsewhere")
    mark = verify_shared_storage(here)
    assert verify_shared_storage(here) == mark
    assert _check_node(here, mark, None) == (True, True)
    assert _check_node(elsewhere, mark, None) == (False, True)
    verify_storage(media_store(here), mark)


def test_a_store_that_can_not_be_written_is_refused_without_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.cluster.shared_storage.alive_nodes", lambda: [{}])
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigurationError) as refused:
        verify_shared_storage(settings(tmp_path / "file" / "media"))
    assert str(tmp_path) not in str(refused.value)


def test_each_node_that_does_not_see_is_named() -> None:
    assert _problems("gpu-1", (True, True)) == []
    assert _problems("gpu-1", (False, True)) == [f"Node gpu-1 {OTHER_STORE}."]
    assert _problems("gpu-1", (False, False)) == [f"Node gpu-1 {OTHER_STORE}.", f"Node gpu-1 {OTHER_DATABASE}."]


def test_a_node_that_has_gone_is_no_problem() -> None:
    assert _problems("gpu-1", RayError("gone")) == []
