"""Filters of system calls: seccomp with classic BPF programs, assembled here.

A filter is a list of rules and an answer for every call that has no rule. The Python bindings of libseccomp need a
shared library that is missing from small images, and the packages that load it with ``ctypes`` are not kept any more.

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
    """Return the answer that makes a call fail with an ``errno``."""
    return _ERRNO | number


REFUSE = refuse_with(errno.EPERM)
MISSING = refuse_with(errno.ENOSYS)
"""For calls whose callers fall back to an older one."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds if the bits ``mask`` of an argument's low 32 bits are ``value``."""

    argument: int
    mask: int
    value: int


@dataclass(frozen=True, slots=True)
class Rule:
    """The answer to a system call if every condition of its arguments holds; otherwise later rules decide.

    Attributes:
        syscall: its name; a name that the architecture lacks is left out.
        answer: ``ALLOW``, ``REFUSE`` or another.
        conditions: of the arguments.
    """

    syscall: str
    answer: int = ALLOW
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Filter:
    """Rules, of which the first that applies counts, and the answer where none does."""

    rules: tuple[Rule, ...]
    default: int = REFUSE


def allow(*names: str) -> tuple[Rule, ...]:
    """Return rules that allow calls whatever their arguments are."""
    return tuple(Rule(name) for name in names)


def refuse(*names: str) -> tuple[Rule, ...]:
    """Return rules that refuse calls whatever their arguments are."""
    return tuple(Rule(name, REFUSE) for name in names)


def assemble(wanted: Filter, syscalls: Mapping[str, int], architecture: int) -> bytes:
    """Return the BPF program of a filter.

    A call by another architecture's convention (32-bit calls on a 64-bit kernel) ends the process: its numbers mean
    something else. Calls of x32 carry a bit that no number here has, so they get the default answer.

    Args:
        wanted: the filter.
        syscalls: numbers by name.
        architecture: its ``AUDIT_ARCH_…`` value.
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
        raise ValueError("the filter has too many rules")
    return b"".join(program)


def _assemble_rule(rule: Rule, number: int) -> list[bytes]:
    """Return a comparison with the call's number that jumps over the rule's body, and that body.

    The body returns the answer, or loads the number again for the rules behind it.
    """
    body = [_instruction(_RETURN, rule.answer)]
    if rule.conditions:
        body.append(_instruction(_LOAD, _NUMBER_AT))
    for condition in reversed(rule.conditions):
        body = [
            _instruction(_LOAD, _ARGUMENTS_AT + 8 * condition.argument),  # both architectures are little-endian
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
    """Apply a filter to this thread and all that it starts; it can't be removed. Needs ``no_new_privs``.

    Raises:
        OSError: the kernel has no filters, or the architecture is not known here.
    """
    install_program(assembled(wanted))


def assembled(wanted: Filter) -> bytes:
    """Return the program for this machine.

    Raises:
        OSError: the architecture is not known here.
    """
    architecture = _AUDIT_ARCH.get(platform.machine())
    if architecture is None:
        raise OSError(errno.ENOSYS, f"no filters for {platform.machine()}")
    return assemble(wanted, numbers(), architecture)


def install_program(program: bytes) -> None:
    """Apply an assembled program; see ``install``."""
    structure = _Program(len(program) // _INSTRUCTION.size, program)
    prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(structure))
