"""``python -m deployments.run [serve_config.yaml]``: ``serve run``, for a single machine that keeps to itself.

What ``serve run`` alone leaves open can only be closed by variables that are there before Ray starts:

- Ray's ports (GCS, raylet, workers, dashboard, metrics) listen on the loopback interface instead of on all of them.
  Ray 2.60 replaces a loopback ``--node-ip-address`` by the machine's address; it keeps to the loopback where clusters
  of several nodes are switched off, by the variable it has for that on Windows and macOS.
- Whoever calls Ray needs its token, and its files are this user's alone.
- Serve's HTTP proxies are bounded from their first connection on.

A variable that is set already is left as it is. The process becomes ``serve run``: signals reach it as ever.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from deployments.security.private_files import UMASKS
from pipeline.settings import FileAccess

DEFAULT_CONFIG = "serve_config.yaml"
DEFAULT_ENVIRONMENT: Mapping[str, str] = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.front.proxies:bounded",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The variables that ``serve run`` is started with."""
    return {**DEFAULT_ENVIRONMENT, **given}


def command(arguments: Sequence[str]) -> list[str]:
    """The command that takes this process's place."""
    return [sys.executable, "-m", "ray.serve.scripts", "run", *(arguments or [DEFAULT_CONFIG])]


def main(
    arguments: Sequence[str] | None = None, replace: Callable[[str, list[str], dict[str, str]], object] = os.execve
) -> None:
    """Become ``serve run``; return only where ``replace`` does."""
    os.umask(UMASKS[FileAccess.OWNER])
    words = command(sys.argv[1:] if arguments is None else arguments)
    replace(words[0], words, environment(os.environ))


if __name__ == "__main__":
    main()
