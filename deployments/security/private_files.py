"""Files that the service makes are its user's alone: recordings, transcripts, the database, Ray's token.

A umask does it for every file of a process, whoever makes it (SQLite, fsspec, a child); a folder that was there before
is narrowed where it is the service's own.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.settings import FileAccess, Settings

logger = logging.getLogger(__name__)

UMASKS = {FileAccess.OWNER: 0o077, FileAccess.GROUP: 0o007}


def make_private(settings: Settings) -> None:
    """Narrows what this process makes from now on, and the data folder with what lies at its top."""
    umask = UMASKS[settings.file_access]
    os.umask(umask)
    if settings.data_dir.is_dir():
        narrow(_service_paths(settings.data_dir.resolve()), umask)


def narrow(paths: Iterable[Path], umask: int) -> None:
    """Takes the umask's permissions from files and folders of this user; says which it may not change."""
    for path in paths:
        with suppress(FileNotFoundError):  # SQLite's own files come and go
            found = path.lstat()
            mode = stat.S_IMODE(found.st_mode)
            if stat.S_ISLNK(found.st_mode) or not mode & umask:
                continue
            if found.st_uid != os.geteuid():
                logger.warning("other users can read what the service stores: %s belongs to another user", path.name)
                continue
            path.chmod(mode & ~umask)


def narrow_token() -> None:
    """Takes others' permissions from the token that Ray makes in the home folder (mode 0644 in Ray 2.60)."""
    narrow([Path.home() / ".ray" / "auth_token"], UMASKS[FileAccess.OWNER])


def _service_paths(folder: Path) -> list[Path]:
    return [folder, *sorted(folder.glob("tasks.db*")), folder / "media", folder / "log"]
