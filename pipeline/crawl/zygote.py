"""The parent of the processes that read pages: yt-dlp is loaded once, and a process for a link is a fork of that.

Loading yt-dlp, its 1,750 extractors and their patterns takes two seconds of CPU; a fork takes milliseconds and shares
the memory. Run as ``python -m pipeline.crawl.zygote FD``: for each pair of descriptors (conversation, data) that
arrives on the socket ``FD``, it forks. It ends when the other end of the socket closes.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from pipeline.crawl import child


def main() -> None:
    """Forks until nobody is left to fork for."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal is for the service, which then closes us
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the children
    child.warm_up()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        if not message:
            return
        if os.fork() == 0:
            _become_child(control, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _become_child(control: socket.socket, descriptors: list[int]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control.close()
    try:
        child.run(*descriptors)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
