"""Tests of pipeline.confinement.landlock."""

from __future__ import annotations

import struct

import pytest

from pipeline.confinement.landlock import (
    MANAGE_FILES,
    HandledAccess,
    LandlockFileAccess,
    LandlockNetAccess,
    LandlockScope,
)


@pytest.mark.parametrize(
    ("version", "files", "net", "scope"),
    [(1, 13, 0, 0), (2, 14, 0, 0), (3, 15, 0, 0), (4, 15, 2, 0), (5, 16, 2, 0), (6, 16, 2, 2), (9, 16, 2, 2)],
)
def test_each_version_handles_what_it_knows(version: int, files: int, net: int, scope: int) -> None:
    handled = HandledAccess.by_version(version)
    assert handled.files == LandlockFileAccess((1 << files) - 1)
    assert handled.net.bit_count() == net
    assert handled.scope.bit_count() == scope


@pytest.mark.parametrize(("version", "fields"), [(1, 1), (3, 1), (4, 2), (5, 2), (6, 3)])
def test_an_older_version_gets_a_shorter_structure(version: int, fields: int) -> None:
    encoded = HandledAccess.by_version(version).encode(version)
    values = struct.unpack(f"={fields}Q", encoded)
    assert values[0] == HandledAccess.by_version(version).files


def test_whoever_keeps_files_makes_neither_links_nor_devices() -> None:
    forbidden = (
        LandlockFileAccess.MAKE_SYM
        | LandlockFileAccess.MAKE_CHAR
        | LandlockFileAccess.MAKE_BLOCK
        | LandlockFileAccess.MAKE_SOCK
    )
    assert not MANAGE_FILES & (
        forbidden | LandlockFileAccess.MAKE_DIR | LandlockFileAccess.EXECUTE | LandlockFileAccess.REFER
    )


def test_the_newest_scopes_are_signals_and_abstract_sockets() -> None:
    assert HandledAccess.by_version(6).scope == LandlockScope.SIGNAL | LandlockScope.ABSTRACT_UNIX_SOCKET
    assert HandledAccess.by_version(6).net == LandlockNetAccess.BIND_TCP | LandlockNetAccess.CONNECT_TCP
