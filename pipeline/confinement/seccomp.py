"""Filtering system calls with seccomp; the classic BPF programs are assembled here.

A filter is a list of rules, and an answer to all calls without a rule. The Python bindings of libseccomp need a shared
library that small images lack, and the packages that load it with ``ctypes`` are no longer maintained.

Source: ``Documentation/userspace-api/seccomp_filter.rst`` and ``include/uapi/linux/seccomp.h`` of Linux.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.confinement.syscalls import numbers, prctl

ALLOW = 0x7FFF_0000
KILL_PROCESS = 0x8000_0000
_ERRNO = 0x0005_0000

_AUDIT_ARCH: Mapping[str, int] = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_PR_SET_SECCOMP = 22
_MODE_FILTER = 2
_MAX_INSTRUCTIONS = 4096

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
_INSTRUCTION = struct.Struct("=HBBI")


def refuse_with(number: int) -> int:
    """Return the answer that makes a call fail with this ``errno``."""
    return _ERRNO | number


REFUSE = refuse_with(errno.EPERM)
MISSING = refuse_with(errno.ENOSYS)
"""Answer to calls that libraries replace with an older one if the kernel does not have them."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on an argument: the bits ``mask`` of its low 32 bits must equal ``value``."""

    argument: int
    mask: int
    value: int


@dataclass(frozen=True, slots=True)
class Rule:
    """The answer to a system call if all conditions hold; otherwise later rules decide.

    Attributes:
        syscall: name of the call; the rule is skipped on architectures without it.
        answer: ``ALLOW``, ``REFUSE`` or another.
        conditions: conditions on the arguments.
    """

    syscall: str
    answer: int = ALLOW
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Filter:
    """A list of rules, of which the first that applies decides, and the answer if none applies."""

    rules: tuple[Rule, ...]
    default: int = REFUSE


def allow(*names: str) -> tuple[Rule, ...]:
    """Return rules that allow calls with any arguments."""
    return tuple(Rule(name) for name in names)


def refuse(*names: str) -> tuple[Rule, ...]:
    """Return rules that refuse calls with any arguments."""
    return tuple(Rule(name, REFUSE) for name in names)


def assemble(wanted: Filter, syscalls: Mapping[str, int], architecture: int) -> bytes:
    """Return the BPF program of a filter.

    A call by another architecture's convention (32-bit calls on a 64-bit kernel) ends the process, since its numbers
    mean other calls. Numbers of x32 calls contain a bit that no number here has, so they get the default answer.

    Args:
        wanted: the filter.
        syscalls: numbers of system calls by name.
        architecture: ``AUDIT_ARCH_…`` of the architecture.

    Raises:
        ValueError: the program is longer than the kernel accepts.
    """
    program = [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_JUMP_IF_EQUAL, architecture, if_true=1),
        _instruction(_RETURN, KILL_PROCESS),
        _instruction(_LOAD, _NUMBER_AT),
    ]
    for rule in wanted.rules:
        if rule.syscall in syscalls:
            program += _assemble_rule(rule, syscalls[rule.syscall])
    program.append(_instruction(_RETURN, wanted.default))
    if len(program) > _MAX_INSTRUCTIONS:
        raise ValueError(f"The filter has too many rules: its program is longer than {_MAX_INSTRUCTIONS} instructions.")
    return b"".join(program)


def _assemble_rule(rule: Rule, number: int) -> list[bytes]:
    """Return the instructions of a rule: a comparison with the call's number, and a body that is skipped if it differs.

    The body returns the answer, or loads the number again for the rules that follow.
    """
    body = [_instruction(_RETURN, rule.answer)]
    if rule.conditions:
        body.append(_instruction(_LOAD, _NUMBER_AT))
    for condition in reversed(rule.conditions):
        body = [
            # The low half comes first, since both architectures are little-endian.
            _instruction(_LOAD, _ARGUMENTS_AT + 8 * condition.argument),
            _instruction(_AND, condition.mask),
            _instruction(_JUMP_IF_EQUAL, condition.value, if_false=len(body) - 1),
            *body,
        ]
    return [_instruction(_JUMP_IF_EQUAL, number, if_false=len(body)), *body]


def _instruction(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, value & 0xFFFF_FFFF)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install(wanted: Filter) -> None:
    """Apply a filter to this thread and everything it starts. It can't be removed, and needs ``no_new_privs``.

    Raises:
        OSError: the kernel has no filters, or the architecture is not supported here.
    """
    program = _assemble_for_this_machine(wanted)
    structure = _Program(len(program) // _INSTRUCTION.size, program)
    prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(structure))


def _assemble_for_this_machine(wanted: Filter) -> bytes:
    architecture = _AUDIT_ARCH.get(platform.machine())
    if architecture is None:
        raise OSError(errno.ENOSYS, f"Filters of system calls are not supported on {platform.machine()}.")
    return assemble(wanted, numbers(), architecture)
