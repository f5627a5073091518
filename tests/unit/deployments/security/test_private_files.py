from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.security.private_files import make_private, narrow, narrow_token
from pipeline.settings import FileAccess, Settings


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("access", "folder", "file"), [(FileAccess.OWNER, 0o700, 0o600), (FileAccess.GROUP, 0o770, 0o660)]
)
def test_what_is_made_is_private(tmp_path: Path, access: FileAccess, folder: int, file: int) -> None:
    data_dir = tmp_path / "share" / "murmuration"
    make_private(Settings().model_copy(update={"data_dir": data_dir, "file_access": access}))
    (data_dir / "media").mkdir(parents=True)
    (data_dir / "tasks.db").write_bytes(b"")
    modes = [mode(path) for path in (data_dir, data_dir / "media", data_dir / "tasks.db")]
    assert modes == [folder, folder, file]


def test_what_an_older_version_made_is_narrowed(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    for folder in (data_dir, data_dir / "media"):
        folder.mkdir(mode=0o755)
    for name in ("tasks.db", "tasks.db-wal", "other.txt"):
        (data_dir / name).write_bytes(b"")
    make_private(Settings().model_copy(update={"data_dir": data_dir}))
    assert (mode(data_dir), mode(data_dir / "media")) == (0o700, 0o700)
    assert [mode(data_dir / name) for name in ("tasks.db", "tasks.db-wal", "other.txt")] == [0o600, 0o600, 0o644]


def test_a_group_keeps_what_it_was_given(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    make_private(Settings().model_copy(update={"data_dir": tmp_path, "file_access": FileAccess.GROUP}))
    assert mode(tmp_path) == 0o2770


def test_a_data_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o755)
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    make_private(Settings().model_copy(update={"data_dir": tmp_path / "data"}))
    assert mode(tmp_path / "disk") == 0o700


def test_links_are_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"")
    (tmp_path / "link").symlink_to(target)
    narrow([tmp_path / "link", tmp_path / "absent"], 0o077)
    assert mode(target) == 0o644


def test_no_folder_is_made_that_nobody_needs(tmp_path: Path) -> None:
    make_private(Settings().model_copy(update={"data_dir": tmp_path / "data"}))
    assert list(tmp_path.iterdir()) == []


def test_rays_token_is_narrowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    narrow_token()
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("token")
    narrow_token()
    assert mode(token) == 0o600
