"""The parent of the processes that read pages: yt-dlp is loaded once, and a process for a link is a fork of that.

Loading yt-dlp, its 1,750 extractors and their patterns takes two seconds of CPU; a fork takes milliseconds and shares
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
"""Of each job: the conversation, the data, and the pipe for its status."""


def remove_scratch(message: bytes) -> None:
    """Remove the folder of a process that has ended; a job's message is its path."""
    shutil.rmtree(os.fsdecode(message), ignore_errors=True)


def main() -> None:
    """Fork until nobody is left to fork for."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal is for the service, which then closes us
    extractor_child.warm_up()
    own_network = has_loopback()

    def run(_: bytes) -> None:
        extractor_child.run(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + 1, own_network=own_network)

    ForkServer(control, DESCRIPTORS, run, remove_scratch).serve()


if __name__ == "__main__":
    main()
