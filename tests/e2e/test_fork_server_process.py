"""Tests of pipeline.confinement.fork_server_process, with real processes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.confinement.fork_server_process import ForkServerProcess

PROGRAM = """
import json, os, socket, sys, time
control = socket.socket(fileno=int(sys.argv[1]))
message, [answers], _, _ = socket.recv_fds(control, 100, 1)
os.write(answers, json.dumps([message.decode(), sys.argv[2:], dict(os.environ), os.getcwd()]).encode())
os.close(answers)
control.recv(1)
if sys.argv[2] == "hang":
    time.sleep(600)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the program, as a module on this process's path."""
    (tmp_path / "reporting_server.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    return "reporting_server"


def report_of(server: ForkServerProcess, message: bytes) -> list[object]:
    ours, theirs = os.pipe()
    server.send_job(message, [theirs])
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        report: list[object] = json.loads(file.read())
        return report


def test_a_fork_server_has_no_environment_but_its_own(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cr3t")
    server = ForkServerProcess.start(module, "end", environment={"LANG": "C.UTF-8"})
    message, arguments, environment, folder = report_of(server, b"a job")
    assert (message, arguments, folder) == ("a job", ["end"], "/")
    assert isinstance(environment, dict)
    assert environment.keys() - {"LC_CTYPE"} == {"LANG", "PYTHONPATH"}
    server.stop(timeout_s=60)
    assert not server.running


@pytest.mark.parametrize("timeout_s", [0.0, 0.1])
def test_a_fork_server_that_does_not_end_is_killed(module: str, timeout_s: float) -> None:
    server = ForkServerProcess.start(module, "hang", environment={})
    report_of(server, b"")
    assert server.running
    server.stop(timeout_s)
    assert not server.running


def test_a_dead_fork_server_takes_no_jobs(module: str) -> None:
    server = ForkServerProcess.start("no_such_module", environment={})
    server._process.wait(60)
    assert not server.running
    with pytest.raises(ConnectionError):
        server.send_job(b"a job", [])
    server.stop()
