"""Tests of pipeline.confinement.syscalls."""

from __future__ import annotations

import errno
import os

import pytest

from pipeline.confinement.syscalls import NUMBERS, syscall


@pytest.mark.parametrize("architecture", NUMBERS)
def test_no_two_calls_have_one_number(architecture: str) -> None:
    numbers = NUMBERS[architecture]
    assert len(set(numbers.values())) == len(numbers)


def test_calls_that_only_old_architectures_have_are_missing_on_new_ones() -> None:
    assert not {"open", "fork", "rename", "chmod"} & NUMBERS["aarch64"].keys()


def test_the_kernel_understands_the_number() -> None:
    assert syscall("getpid") == os.getpid()


def test_what_the_kernel_refuses_is_raised() -> None:
    with pytest.raises(OSError, match="truncate") as caught:
        syscall("truncate", b"/nowhere/at/all\0", 0)
    assert caught.value.errno == errno.ENOENT


def test_a_call_that_has_no_number_here_is_missing() -> None:
    with pytest.raises(OSError, match="no_such_call") as caught:
        syscall("no_such_call")
    assert caught.value.errno == errno.ENOSYS
