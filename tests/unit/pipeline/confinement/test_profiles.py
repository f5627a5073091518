"""Tests of pipeline.confinement.profiles."""

from __future__ import annotations

import sysconfig

from pipeline.confinement.landlock import LandlockFileAccess
from pipeline.confinement.profiles import ExtractorRights

RIGHTS = ExtractorRights("/scratch", ("/etc/own.pem",), 4711, 1, 1)


def writable(rights: ExtractorRights) -> set[str]:
    changing = (
        LandlockFileAccess.WRITE_FILE
        | LandlockFileAccess.MAKE_REG
        | LandlockFileAccess.REMOVE_FILE
        | LandlockFileAccess.TRUNCATE
    )
    return {path for path, access in rights.ruleset().paths.items() if access & changing}


def executable(rights: ExtractorRights) -> set[str]:
    return {path for path, access in rights.ruleset().paths.items() if access & LandlockFileAccess.EXECUTE}


def test_an_extractor_writes_its_scratch_folder_only() -> None:
    assert writable(RIGHTS) == {"/scratch", "/dev/null"}


def test_an_extractor_reads_its_libraries_and_authorities() -> None:
    paths = RIGHTS.ruleset().paths
    assert {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "/etc/ssl", "/etc/own.pem"} <= paths.keys()
    assert not {"/", "/etc", "/proc", "/home", "/tmp", "/app"} & paths.keys()


def test_an_extractor_connects_to_its_proxy_only() -> None:
    assert RIGHTS.ruleset().connect_ports == (4711,)


def test_an_extractor_starts_nothing_but_its_runtime() -> None:
    assert executable(RIGHTS) == set()
    programs = executable(ExtractorRights("/scratch", (), 4711, 1, 1, "/opt/deno"))
    assert "/opt/deno" in programs
    assert all("/ld-" in path for path in programs - {"/opt/deno"})
