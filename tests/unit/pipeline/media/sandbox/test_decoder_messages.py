"""Tests of pipeline.media.sandbox.decoder_messages."""

from __future__ import annotations

import socket
from typing import Any

from pipeline.media.sandbox.decoder_messages import Wire


class LeavingChild(socket.socket):
    """The parent's end of a wire whose child ends as soon as it learns that its file has no more bytes."""

    child: socket.socket

    def sendall(self, data: Any, /, *_: Any) -> None:
        super().sendall(data)
        assert self.child.recv(64) == bytes(4)
        self.child.close()


def test_a_child_may_leave_with_its_last_answer() -> None:
    ours, theirs = socket.socketpair()
    with LeavingChild(fileno=ours.detach()) as parent:
        parent.child = theirs
        Wire(parent).send_content(b"")
    assert theirs.fileno() == -1
