"""Start ``serve run`` for a single machine, closed to the network: ``python -m deployments.run [serve_config.yaml]``.

``serve run`` alone has gaps that only environment variables can close, set before Ray starts:

- Ray's TCP ports (GCS, raylet, workers, dashboard, metrics) listen on the loopback interface instead of on all of them.
  Ray 2.60 replaces a loopback ``--node-ip-address`` by the machine's address. It uses the loopback interface only if
  clusters of several nodes are disabled, by the variable that it has for this on Windows and macOS.
- Callers of Ray need its token, and only this user can read the files that the service and Ray create.
- Serve's HTTP proxies are bounded from their first connection on.

Variables that are set already keep their values. The process becomes ``serve run``, so signals reach it unchanged.
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
    """Return the environment for ``serve run``: the given variables, and the defaults for those that are not set."""
    return {**DEFAULT_ENVIRONMENT, **given}


def command(arguments: Sequence[str]) -> list[str]:
    """Return the command that replaces this process."""
    return [sys.executable, "-m", "ray.serve.scripts", "run", *(arguments or [DEFAULT_CONFIG])]


def main(
    arguments: Sequence[str] | None = None, replace: Callable[[str, list[str], dict[str, str]], object] = os.execve
) -> None:
    """Replace this process by ``serve run``; return only if ``replace`` does."""
    os.umask(UMASKS[FileAccess.OWNER])
    words = command(sys.argv[1:] if arguments is None else arguments)
    replace(words[0], words, environment(os.environ))


if __name__ == "__main__":
    main()
