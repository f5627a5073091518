"""Runs the fork server of the processes that read pages: it loads yt-dlp once and forks a process for each link.

Loading yt-dlp, its 1,750 extractors and their patterns takes two seconds of CPU. A fork takes milliseconds and shares
the memory. Run as ``python -m pipeline.crawl.extractor_fork_server FD``; see ``pipeline.confinement.fork_server``.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys

from pipeline.confinement.fork_server import FIRST_DESCRIPTOR, ForkServer
from pipeline.confinement.namespaces import has_loopback
from pipeline.crawl import extractor_child

DESCRIPTORS = 3
"""File descriptors of each job: the socket of its session, the pipe for data and the pipe for its status."""


def remove_scratch(message: bytes) -> None:
    """Remove the scratch folder of a process that has ended; its path is the job's message."""
    shutil.rmtree(os.fsdecode(message), ignore_errors=True)


def main() -> None:
    """Fork a process for each job, until the service closes the control socket."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the service handles Ctrl-C and then ends this process
    extractor_child.warm_up()
    own_network = has_loopback()

    def run(_: bytes) -> None:
        extractor_child.run(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + 1, own_network=own_network)

    ForkServer(control, DESCRIPTORS, run, remove_scratch).serve()


if __name__ == "__main__":
    main()
