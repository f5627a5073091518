"""Names in folders that outlive a power cut. Everything blocks.

A file's bytes are safe once the file is synced, its name once the folder is: both are needed (fsync(2)).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

UNSYNCABLE = frozenset({errno.EINVAL, errno.EBADF, errno.ENOTSUP})
"""How a file system says that its folders can't be synced; it then keeps names by means of its own."""


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Wait until the disk has the names that are in a folder now."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in UNSYNCABLE:
            raise
    finally:
        os.close(folder)


def make_folders(path: str | os.PathLike[str]) -> None:
    """Make a folder and those above it where they are missing; the name of each new one is synced."""
    folder = Path(path)
    missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)
