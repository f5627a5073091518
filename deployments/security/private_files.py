"""Access rights of the service's files, for its user alone: recordings, transcripts, the database, Ray's token.

A umask applies to every file of a process, whatever code creates it (SQLite, fsspec, a child). Folders of the service
that existed before get the same rights.
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
    """Restrict the files that this process creates from now on, and the data folder with its top-level content."""
    umask = UMASKS[settings.file_access]
    os.umask(umask)
    if settings.data_dir.is_dir():
        narrow(_service_paths(settings.data_dir.resolve()), umask)


def narrow(paths: Iterable[Path], umask: int) -> None:
    """Remove the umask's permissions from files and folders of this user; log those that belong to another user."""
    for path in paths:
        with suppress(FileNotFoundError):  # SQLite creates and deletes its auxiliary files at any time
            status = path.lstat()
            mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISLNK(status.st_mode) or not mode & umask:
                continue
            if status.st_uid != os.geteuid():
                logger.warning("other users can read what the service stores: %s belongs to another user", path.name)
                continue
            path.chmod(mode & ~umask)


def narrow_token() -> None:
    """Remove other users' permissions from the token that Ray writes to the home folder (mode 0644 in Ray 2.60)."""
    narrow([Path.home() / ".ray" / "auth_token"], UMASKS[FileAccess.OWNER])


def _service_paths(folder: Path) -> list[Path]:
    return [folder, *sorted(folder.glob("tasks.db*")), folder / "media", folder / "log"]
