"""A disk whose power can be cut: ext4 on a loop device, shut down in mid-work as ``xfstests`` does.

The shutdown drops whatever the file system has not written to its device, and refuses everything after. Mounted again,
it replays its journal as after a real cut: what was synced is there, what was not may not be.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

SIZE_BYTES = 96 * 1024 * 1024
SHUTDOWN = 0x8004_587D
"""``EXT4_IOC_SHUTDOWN``, ``_IOR('X', 125, __u32)`` (fs/ext4/ext4.h)."""
NOTHING_FLUSHED = 2
"""``EXT4_GOING_FLAGS_NOLOGFLUSH``: not even the journal is written."""


class PowerCutUnavailable(Exception):
    """A disk of one's own can't be made here: it takes root, loop devices, ext4 and ``mkfs.ext4``."""


class Disk:
    """A mounted disk of 96 MiB.

    Args:
        folder: where its image and its mount point are made.

    Raises:
        PowerCutUnavailable: it can't be had.
    """

    def __init__(self, folder: Path) -> None:
        self._image, self.path = folder / "disk.img", folder / "disk"
        self._device = ""
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(SIZE_BYTES)
        try:
            self._attach()
            _run("mkfs.ext4", "-q", self._device)
            self._mount()
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            self._detach()
            raise PowerCutUnavailable(str(error)) from error

    def cut_power(self) -> None:
        """Lose all that was not synced; every later access fails until the power is back."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NOTHING_FLUSHED))
        finally:
            os.close(descriptor)
        # What the kernel still holds of the device is lost as well: only what is in the image now counts.
        shutil.copyfile(self._image, self._image.with_suffix(".cut"))

    def power_on(self) -> None:
        """Mount it as the cut left it, once no process has a file of it open."""
        self.take_out()
        self._image.with_suffix(".cut").replace(self._image)
        self._attach()
        self._mount()

    def take_out(self) -> None:
        """Unmount it, at the latest when the last process has closed its files."""
        _run("umount", "--lazy", str(self.path))
        self._detach()

    def _attach(self) -> None:
        self._device = _run("losetup", "--find", "--show", str(self._image)).strip()
        _run("blockdev", "--flushbufs", self._device)  # another disk's blocks may be cached under this name

    def _detach(self) -> None:
        if self._device:
            _run("losetup", "--detach", self._device)
            self._device = ""

    def _mount(self) -> None:
        _run("mount", "-t", "ext4", self._device, str(self.path))


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
