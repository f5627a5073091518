"""Confined processes, as root and as a plain user, try every act of ``confinement.forbidden_acts``: all are refused.

A superuser's test runs each probe as root and as user 1000; anybody else's only as that user. The layers are also tried
one by one, so that a layer which does nothing is noticed, and so is a probe that reports what does not hold.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from pipeline.confinement.forbidden_acts import ACTS
from pipeline.confinement.namespaces import has_loopback
from pipeline.confinement.probe import ForbiddenAct, ProbeTargets, targets
from pipeline.confinement.syscalls import numbers
from pipeline.domain.confinement_level import DONE, Confinement, confinement_of

Results = Mapping[str, Mapping[str, str]]

USERS = (0, 1000) if os.getuid() == 0 else (os.getuid(),)
PROCESSES = ("decoder", "extractor")

PROGRAM = """
import json, os, sys
from pipeline.confinement import landlock, namespaces, profiles, seccomp
from pipeline.confinement.forbidden_acts import try_all
from pipeline.confinement.namespaces import has_loopback
from pipeline.confinement.probe import targets

process, user, scratch, *missing = sys.argv[1:]
profiles.library_folders()  # loads what a plain user might not be able to read
if int(user) != os.getuid():
    os.setgroups([])
    os.setresgid(*[int(user)] * 3)
    os.setresuid(*[int(user)] * 3)

def not_here(*_):
    raise OSError

if "seccomp" in missing:
    seccomp.install = not_here
if "landlock" in missing:
    landlock.restrict = not_here
if "namespaces" in missing:
    namespaces.separate = lambda: False

MEBIBYTES = 256 * 1024 * 1024
with targets(MEBIBYTES) as aims:
    ours, theirs = os.pipe()
    if os.fork() == 0:
        try:
            if process == "decoder":
                profiles.confine_decoder(60, MEBIBYTES)
            elif process == "extractor":
                rights = profiles.ExtractorRights(scratch, (), 9, MEBIBYTES, MEBIBYTES)
                profiles.confine_extractor(rights)
                profiles.filter_extractor(rights)
            os.write(theirs, json.dumps(try_all(aims)).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as results:
        print(results.read())
    os.wait()
"""


@cache
def results(process: str, user: int, missing: tuple[str, ...] = ()) -> Results:
    """Return the results of the attempts of a user's process, where some layers are not available."""
    scratch = f"/tmp/murmuration-test-{os.getpid()}-{user}"
    Path(scratch).mkdir(exist_ok=True)
    os.chown(scratch, user, -1)
    try:
        arguments = [sys.executable, "-c", PROGRAM, process, str(user), scratch, *missing]
        # What the probes aim at lies where every user gets to, so that nothing but confinement keeps them from it.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": "/tmp"}
        done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True, env=environment, timeout=60)
    finally:
        for entry in Path(scratch).iterdir():
            entry.unlink()
        Path(scratch).rmdir()
    return json.loads(done.stdout)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_a_confined_process_is_refused(act: ForbiddenAct, process: str, user: int) -> None:
    assert results(process, user)[act.part][act.name] != DONE


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("process", PROCESSES)
def test_everything_holds_here(process: str, user: int) -> None:
    assert confinement_of(results(process, user)).missing == ()


@pytest.mark.parametrize("missing", ["landlock", "namespaces"])
@pytest.mark.parametrize("user", USERS)
def test_a_decoder_is_confined_by_its_list_of_calls_alone(missing: str, user: int) -> None:
    assert confinement_of(results("decoder", user, (missing,))).missing == ()


@pytest.mark.parametrize("user", USERS)
def test_without_a_list_of_calls_landlock_keeps_files_and_signals_to_others(user: int) -> None:
    found = results("decoder", user, ("seccomp",))
    assert "filesystem" in confinement_of(found).missing  # times of files, which Landlock leaves open
    for act in ("read a file", "truncate", "rename", "unlink", "link", "make a folder"):
        assert found["filesystem"].get(act) != DONE, act
    for act in ("signal", "trace", "read memory of another"):
        assert found["signals"][act] != DONE, act


@pytest.mark.parametrize("user", USERS)
def test_without_landlock_an_extractor_reads_files_and_the_report_says_so(user: int) -> None:
    found = confinement_of(results("extractor", user, ("landlock",)))
    assert not found.filesystem
    assert found.processes
    assert found.signals


@pytest.mark.parametrize("user", USERS)
def test_without_a_network_of_its_own_an_extractor_reaches_only_the_proxys_port(user: int) -> None:
    assert confinement_of(results("extractor", user, ("namespaces",))).network


def test_a_process_that_is_not_confined_is_found_out() -> None:
    assert confinement_of(results("nothing", USERS[-1])) in (
        Confinement(),
        Confinement(privileges=True),  # where this test itself runs confined
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only a superuser is free to do everything")
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_an_act_can_succeed_or_its_refusal_would_show_nothing(act: ForbiddenAct) -> None:
    assert results("nothing", 0)[act.part][act.name] == DONE


def test_a_new_network_can_be_used_here() -> None:
    assert has_loopback()


def test_targets_are_gone_afterwards() -> None:
    with targets(1) as aims:
        assert isinstance(aims, ProbeTargets)
        folder = Path(aims.folder)
        assert folder.exists()
    assert not folder.exists()


def test_acts_have_names_of_their_own() -> None:
    assert len({act.name for act in ACTS}) == len(ACTS)
    assert numbers()
