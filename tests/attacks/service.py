"""The service under attack: a checkout's own ``serve run`` with keys for three clients, in processes of its own.

The harness talks to it over HTTP only and imports nothing of the checkout it attacks, so that an older version can be
measured by the same program.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import platformdirs
import yaml

from tests.support.processes import free_port, kill, on_port, surroundings

ATTACKER, VICTIM, LIMITED = "attacker", "victim", "limited"
"""The holders of the keys. ``LIMITED`` has quotas, the others have none."""
QUEUED_LIMIT = 5
"""Tasks of ``LIMITED`` that may wait."""
AUDIO_LIMIT_MINUTES = 10.0
"""Minutes of audio that ``LIMITED`` may send in a day."""
READY_WITHIN_S = 150.0


def key_of(client: str) -> str:
    """Return the client's key: the same at every start, as it opens nothing but a service of this harness."""
    return f"mur_{hashlib.sha256(client.encode()).hexdigest()}"


@dataclass(frozen=True)
class Target:
    """A running service.

    Attributes:
        port: of 127.0.0.1, where it takes requests.
        home: the folder below which all its files are.
        process: ``serve run``.
    """

    port: int
    home: Path
    process: subprocess.Popen[Any]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        return self.home / "data" / "tasks.db"

    def client(self, name: str, timeout_s: float = 60.0) -> httpx.Client:
        """Return an HTTP client with the key of ``name``."""
        return httpx.Client(**self._client_options(name, timeout_s))

    def async_client(self, name: str, timeout_s: float = 60.0) -> httpx.AsyncClient:
        """Return such a client for many requests at a time."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        return httpx.AsyncClient(**self._client_options(name, timeout_s), limits=limits)

    @contextmanager
    def rows(self) -> Iterator[sqlite3.Connection]:
        """Open the service's own SQLite database, to change it behind its back; commit at the end."""
        connection = sqlite3.connect(self.database, timeout=30.0)
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def log_tail(self) -> str:
        return (self.home / "log.txt").read_text(errors="replace")[-4000:]

    def _client_options(self, name: str, timeout_s: float) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {key_of(name)}"}
        return {"base_url": self.url, "headers": headers, "timeout": timeout_s, "trust_env": False}


@contextmanager
def running(root: Path, settings: Mapping[str, str], *, model: str) -> Iterator[Target]:
    """Run the application of the checkout at ``root``, ready; at the end nothing of it is left.

    Args:
        root: a checkout of this repository, of any version.
        settings: ``MURMURATION_…`` and ``RAY_…`` variables beside those of the harness.
        model: name of the Whisper model.
    """
    home = Path(tempfile.mkdtemp(prefix="ma-", dir="/tmp"))  # Ray's sockets need a short path
    try:
        for folder in ("ray", "tmp"):
            (home / folder).mkdir()
        port = free_port()
        process = _start(root, home, port, _environment(root, home, model) | dict(settings))
        try:
            target = Target(port, home, process)
            _wait_until_ready(target)
            yield target
        finally:
            kill(process)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _start(root: Path, home: Path, port: int, environment: Mapping[str, str]) -> subprocess.Popen[Any]:
    config = home / "serve_config.yaml"
    config.write_text(yaml.safe_dump(on_port(yaml.safe_load((root / "serve_config.yaml").read_text()), port)))
    command = [sys.executable, "-m", "ray.serve.scripts", "run", str(config)]
    with (home / "log.txt").open("ab") as log:
        return subprocess.Popen(
            command, cwd=root, env=dict(environment), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _environment(root: Path, home: Path, model: str) -> dict[str, str]:
    return surroundings(home) | {
        "PYTHONPATH": str(root),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "TMPDIR": str(home / "tmp"),
        "XDG_CACHE_HOME": str(platformdirs.user_cache_path()),  # the model, joined once
        "HF_HUB_OFFLINE": "1",
        "MURMURATION_ASR__MODEL": model,
        "MURMURATION_AUTH__KEYS": json.dumps(_keys()),
        "MURMURATION_NETWORK__ALLOW_PRIVATE_HOSTS": '["127.0.0.0/8"]',
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "2",
    }


def _keys() -> list[dict[str, Any]]:
    quotas = {"max_queued_tasks": QUEUED_LIMIT, "max_audio_minutes_per_day": AUDIO_LIMIT_MINUTES}
    return [
        {"name": name, "sha256": hashlib.sha256(key_of(name).encode()).hexdigest(), **limits}
        for name, limits in ((ATTACKER, {}), (VICTIM, {}), (LIMITED, quotas))
    ]


def _wait_until_ready(target: Target) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    with httpx.Client(base_url=target.url, timeout=5.0, trust_env=False) as client:
        while not _is_ready(client):
            if target.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The service did not start:\n{target.log_tail()}")
            time.sleep(0.2)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/api/health/ready").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
