"""Tests of pipeline.confinement.seccomp: programs are run by an interpreter of BPF, as the kernel would run them."""

from __future__ import annotations

import errno
import struct

import pytest

from pipeline.confinement.profiles import DECODER, EXTRACTOR, RUNTIME
from pipeline.confinement.seccomp import (
    ALLOW,
    KILL_PROCESS,
    MISSING,
    REFUSE,
    Condition,
    Filter,
    Rule,
    allow,
    assemble,
    refuse_with,
)
from pipeline.confinement.syscalls import NUMBERS

ARCHITECTURE = 0xC000_003E
SYSCALLS = {"read": 0, "socket": 41, "mmap": 9, "clone3": 435}


def run_program(program: bytes, number: int, *arguments: int, architecture: int = ARCHITECTURE) -> int:
    """Run a program on a ``struct seccomp_data`` and return its answer."""
    instructions = list(struct.iter_unpack("=HBBI", program))
    data = struct.pack("=iIQ6Q", number, architecture, 0, *arguments, *([0] * (6 - len(arguments))))
    position = accumulator = 0
    while True:
        code, if_true, if_false, value = instructions[position]
        position += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, value)[0]
            case 0x54:
                accumulator &= value
            case 0x15:
                position += if_true if accumulator == value else if_false
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


def test_a_call_without_a_rule_gets_the_default() -> None:
    program = assemble(Filter(allow("read"), default=refuse_with(errno.EACCES)), SYSCALLS, ARCHITECTURE)
    assert run_program(program, 0) == ALLOW
    assert run_program(program, 1) == 0x0005_0000 | errno.EACCES


def test_a_rule_applies_if_all_of_its_conditions_hold() -> None:
    tcp = Rule("socket", conditions=(Condition(0, 0xFFFF_FFFF, 2), Condition(1, 0xF, 1)))
    program = assemble(Filter((tcp,)), SYSCALLS, ARCHITECTURE)
    assert run_program(program, 41, 2, 1) == ALLOW
    assert run_program(program, 41, 2, 1 | 0o2000000) == ALLOW  # SOCK_CLOEXEC
    assert run_program(program, 41, 1, 1) == REFUSE
    assert run_program(program, 41, 2, 2) == REFUSE


def test_where_a_condition_fails_later_rules_decide() -> None:
    rules = (Rule("socket", ALLOW, (Condition(0, 0xFF, 2),)), Rule("socket", ALLOW, (Condition(0, 0xFF, 10),)))
    program = assemble(Filter((*rules, *allow("read"))), SYSCALLS, ARCHITECTURE)
    assert [run_program(program, 41, family) for family in (2, 10, 1)] == [ALLOW, ALLOW, REFUSE]
    assert run_program(program, 0) == ALLOW


def test_upper_halves_of_arguments_do_not_hide_bits() -> None:
    program = assemble(Filter((Rule("mmap", conditions=(Condition(2, 4, 0),)),)), SYSCALLS, ARCHITECTURE)
    assert run_program(program, 9, 0, 0, 3) == ALLOW
    assert run_program(program, 9, 0, 0, 7 | 1 << 40) == REFUSE


def test_calls_of_another_architecture_end_the_process() -> None:
    program = assemble(Filter(allow("read")), SYSCALLS, ARCHITECTURE)
    assert run_program(program, 0, architecture=0x4000_0003) == KILL_PROCESS
    assert run_program(program, 0x4000_0000) == REFUSE  # read, by the convention of x32


@pytest.mark.parametrize("architecture", NUMBERS)
@pytest.mark.parametrize("wanted", [DECODER, EXTRACTOR, RUNTIME], ids=["decoder", "extractor", "runtime"])
def test_profiles_fit_into_a_program_and_name_calls_that_exist(architecture: str, wanted: Filter) -> None:
    assert len(assemble(wanted, NUMBERS[architecture], ARCHITECTURE)) < 4096 * 8
    assert {rule.syscall for rule in wanted.rules} <= set().union(*NUMBERS.values())


BEYOND = """
    open openat openat2 creat truncate rename renameat2 unlinkat linkat symlinkat fchmodat fchownat utimensat mkdirat
    mknodat socket socketpair connect bind sendmsg recvmsg clone fork vfork execve execveat kill tkill tgkill ptrace
    process_vm_readv process_vm_writev pidfd_open pidfd_getfd prlimit64 setrlimit keyctl io_uring_setup mount unshare
    setns shmget memfd_create bpf prctl seccomp ioctl sched_getaffinity landlock_restrict_self
"""


@pytest.mark.parametrize("architecture", NUMBERS)
@pytest.mark.parametrize("name", BEYOND.split())
def test_a_decoder_may_make_no_call_that_reaches_beyond_it(architecture: str, name: str) -> None:
    numbers = NUMBERS[architecture]
    if name in numbers:
        assert run_program(assemble(DECODER, numbers, ARCHITECTURE), numbers[name]) == REFUSE


@pytest.mark.parametrize("wanted", [DECODER, EXTRACTOR, RUNTIME], ids=["decoder", "extractor", "runtime"])
def test_clone3_is_missing_so_that_libraries_fall_back_to_what_can_be_filtered(wanted: Filter) -> None:
    numbers = NUMBERS["x86_64"]
    assert run_program(assemble(wanted, numbers, ARCHITECTURE), numbers["clone3"]) == MISSING


def test_memory_that_holds_code_is_refused_to_a_decoder() -> None:
    numbers = NUMBERS["x86_64"]
    program = assemble(DECODER, numbers, ARCHITECTURE)
    for name in ("mmap", "mprotect", "pkey_mprotect"):
        assert run_program(program, numbers[name], 0, 4096, 3) == ALLOW
        assert run_program(program, numbers[name], 0, 4096, 5) == REFUSE


def test_a_runtime_signals_and_limits_nobody_by_number() -> None:
    numbers = NUMBERS["x86_64"]
    program = assemble(RUNTIME, numbers, ARCHITECTURE)
    assert run_program(program, numbers["kill"], 2**64 - 1, 9) == REFUSE
    assert run_program(program, numbers["prlimit64"], 0, 7) == ALLOW
    assert run_program(program, numbers["prlimit64"], 1, 7) == REFUSE
    assert run_program(program, numbers["clone"], 0x1000_0011) == REFUSE
    assert run_program(program, numbers["clone"], 0x11) == ALLOW
