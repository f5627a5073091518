"""Folders and file names that survive a power failure. Every function blocks.

A file's bytes are safe once the file is synced, its name once the folder is: both are needed (fsync(2)).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

UNSYNCABLE = frozenset({errno.EINVAL, errno.EBADF, errno.ENOTSUP})
"""Errors of a file system whose folders can't be synced; such a file system keeps names by its own means."""


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Wait until the disk has all names that are in the folder now."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in UNSYNCABLE:
            raise
    finally:
        os.close(folder)


def make_folders(path: str | os.PathLike[str]) -> None:
    """Create a folder and its missing parents, and sync the name of each new one."""
    folder = Path(path)
    missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)
