"""An S3 server of one's own, for tests: moto's, in a process and on a port of 127.0.0.1."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.support.processes import free_port

START_TIMEOUT_S = 60.0


class S3Server:
    """A private server, started on entry and stopped on exit.

    Args:
        folder: for its log.

    Attributes:
        environment: variables by which every S3 client finds it.
    """

    def __init__(self, folder: Path) -> None:
        self._log = folder / "moto.log"
        self._port = free_port()
        self._url = f"http://127.0.0.1:{self._port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self._url,
            "AWS_ACCESS_KEY_ID": "only",
            "AWS_SECRET_ACCESS_KEY": "here",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def __enter__(self) -> Self:
        """Start the server and wait until it responds."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | self.environment)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"moto did not start:\n{self._log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self._process.terminate()
        self._process.wait()

    def create_bucket(self, name: str) -> str:
        """Make an empty bucket and return its URL."""
        httpx.put(f"{self._url}/{name}", trust_env=False).raise_for_status()
        return f"s3://{name}"

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self._url}/moto-api/", trust_env=False, timeout=5.0).is_success
        except httpx.TransportError:
            return False
