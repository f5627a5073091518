"""The process that decoders are forked from: it has the codecs loaded; see ``pipeline.confinement.fork_server``."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

from pipeline.confinement.fork_server import FIRST_DESCRIPTOR, ForkServer
from pipeline.confinement.profiles import confine_decoder
from pipeline.media.sandbox.decoder_jobs import perform, preload_modules
from pipeline.media.sandbox.decoder_messages import Wire

DESCRIPTORS = 2
"""Of each job: the child's end of the wire, and the pipe for its status."""


def run(message: bytes) -> None:
    """Confine this process and do a job."""
    job = json.loads(message)
    wire = Wire(socket.socket(fileno=FIRST_DESCRIPTOR))
    confine_decoder(job["cpu_s"], job["memory_bytes"])
    perform(wire, job)


def main() -> None:
    """Serve: ``python -m pipeline.media.sandbox.decoder_fork_server DESCRIPTOR NICENESS``."""
    control, niceness = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    os.nice(niceness)
    preload_modules()
    ForkServer(socket.socket(fileno=control), DESCRIPTORS, run).serve()


if __name__ == "__main__":
    main()
