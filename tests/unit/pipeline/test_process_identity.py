from __future__ import annotations

import sys

import pytest

from pipeline import process_identity
from pipeline.process_identity import is_dead, own_name
from tests.support.processes import name_of_a_dead_process


def test_no_two_names_are_the_same() -> None:
    assert own_name() != own_name()
    assert len(own_name()) < 200


def test_the_living_are_alive() -> None:
    assert not is_dead(own_name())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says enough")
def test_the_dead_are_dead() -> None:
    assert is_dead(name_of_a_dead_process())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says enough")
def test_a_process_that_got_the_pid_of_another_is_not_that_other() -> None:
    host, boot, namespace, pid, _, number = own_name().rsplit("_", 5)
    assert is_dead("_".join((host, boot, namespace, pid, "1", number)))


@pytest.mark.parametrize("field", [1, 2])
def test_of_other_machines_and_containers_nothing_is_known(field: int) -> None:
    fields = own_name().rsplit("_", 5)
    fields[field], fields[4] = "other", "1"
    assert not is_dead("_".join(fields))


@pytest.mark.parametrize("name", ["", "somebody", "a_b_c_d_e_f", "me-12-abc"])
def test_of_other_names_nothing_is_known(name: str) -> None:
    assert not is_dead(name)


def test_where_the_system_does_not_say_nobody_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_identity, "_boot", lambda: "x")
    fields = own_name().rsplit("_", 5)
    fields[4] = "1"
    assert not is_dead("_".join(fields))
