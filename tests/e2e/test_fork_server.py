"""Tests of pipeline.confinement.fork_server, with real processes: its parent is this test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.confinement.fork_server import STATUS

PROGRAM = """
import os, socket, sys, time
from pathlib import Path
from pipeline.confinement.fork_server import FIRST_DESCRIPTOR, ForkServer

def run(message):
    if message == b"descriptors":
        os.write(FIRST_DESCRIPTOR, " ".join(os.listdir("/proc/self/fd")).encode())
    elif message == b"log":
        os.write(1, b"to standard output")
        os.write(2, b"to standard error")
    elif message == b"fail":
        raise ValueError
    elif message == b"hang":
        os.write(FIRST_DESCRIPTOR, b"here")
        time.sleep(600)

control = socket.socket(fileno=int(sys.argv[1]))
ForkServer(control, 2, run, lambda message: (Path(sys.argv[2]) / message.decode()).touch()).serve()
"""


class RunningForkServer:
    """A fork server in a process of its own; children that have ended leave a file in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno()), str(folder)],
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )

    def fork(self, message: bytes) -> tuple[int, int]:
        """Our ends of a child's data and of its status."""
        data, status = os.pipe(), os.pipe()
        socket.send_fds(self.control, [message], [data[1], status[1]])
        os.close(data[1])
        os.close(status[1])
        return data[0], status[0]

    def close(self) -> tuple[bytes, bytes]:
        """End it; what it and its children wrote on standard output and standard error."""
        self.control.close()
        return self.process.communicate(timeout=60)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningForkServer]:
    server = RunningForkServer(tmp_path)
    yield server
    if server.process.returncode is None:
        server.close()


def everything(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def test_a_child_has_its_descriptors_and_no_others(server: RunningForkServer) -> None:
    data, status = server.fork(b"descriptors")
    listed = everything(data).split()
    assert sorted(map(int, listed))[:4] == [0, 1, 2, 3]
    assert len(listed) == 5  # the last is the folder that was listed
    assert STATUS.unpack(everything(status)) == (0,)


def test_what_a_child_prints_goes_nowhere(server: RunningForkServer) -> None:
    for descriptor in server.fork(b"log"):
        everything(descriptor)
    assert server.close() == (b"", b"")


def test_a_child_that_fails_says_so_in_its_status(server: RunningForkServer) -> None:
    data, status = server.fork(b"fail")
    everything(data)
    assert os.waitstatus_to_exitcode(*STATUS.unpack(everything(status))) == 1


def test_a_child_is_killed_once_nobody_awaits_its_status(server: RunningForkServer) -> None:
    data, status = server.fork(b"hang")
    assert os.read(data, 4) == b"here"
    os.close(status)
    assert everything(data) == b""  # its end of the pipe was closed with it
    everything(server.fork(b"log")[1])
    assert (server.folder / "hang").exists()  # and it was cleaned up after


def test_children_end_with_the_server_and_are_cleaned_up_after(server: RunningForkServer) -> None:
    data, status = server.fork(b"hang")
    assert os.read(data, 4) == b"here"
    server.close()
    assert everything(data) == b""
    assert (server.folder / "hang").exists()
    os.close(status)
