"""The fork server of decoders: it loads the codecs once and forks a child for each recording."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

from pipeline.confinement.fork_server import FIRST_DESCRIPTOR, ForkServer
from pipeline.confinement.profiles import confine_decoder
from pipeline.media.sandbox.decoder_jobs import preload_modules, run_job
from pipeline.media.sandbox.decoder_messages import Wire

DESCRIPTORS = 2
"""Number of descriptors that come with a job: the child's end of the wire, and the pipe for its status."""


def run_confined(message: bytes) -> None:
    """Confine this process and run a job; for a child."""
    job = json.loads(message)
    wire = Wire(socket.socket(fileno=FIRST_DESCRIPTOR))
    confine_decoder(job["cpu_s"], job["memory_bytes"])
    run_job(wire, job)


def main() -> None:
    """Serve jobs: ``python -m pipeline.media.sandbox.decoder_fork_server DESCRIPTOR NICENESS``."""
    control, niceness = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, but only the parent handles it
    os.nice(niceness)
    preload_modules()
    ForkServer(socket.socket(fileno=control), DESCRIPTORS, run_confined).serve()


if __name__ == "__main__":
    main()
