"""A MariaDB server of one's own, for tests: in a fresh folder, on 127.0.0.1, gone afterwards."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.processes import free_port

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
USER, PASSWORD = "murmuration", "only-here"


@contextmanager
def mariadb_required() -> Iterator[None]:
    """Skip the test where the block finds no MariaDB; fail it where ``MURMURATION_REQUIRE_MARIADB=1`` asks for it."""
    try:
        yield
    except FileNotFoundError as error:
        if os.environ.get("MURMURATION_REQUIRE_MARIADB") == "1":
            pytest.fail(f"{error} MURMURATION_REQUIRE_MARIADB=1 asks for it.")
        pytest.skip(str(error))


@contextmanager
def running_mariadb(folder: Path) -> Iterator[MariaDbServer]:
    """Run a server in a folder, for a fixture."""
    with mariadb_required():
        server = MariaDbServer(folder)
    with server:
        yield server


class MariaDbServer:
    """A private server, started on entry and stopped on exit; it can be killed and started again in between.

    Args:
        folder: an empty folder for its data.
        host: the address of this machine that it listens on.

    Raises:
        FileNotFoundError: MariaDB is not installed.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self._host = host
        self._daemon, self._installer = _program("mariadbd"), _program("mariadb-install-db")
        self._client = _program("mariadb")
        self._data = folder / "data"
        # The path of a socket may have 107 bytes at most, and folders of tests are deep.
        self._socket = Path("/tmp") / f"murmuration-{os.getpid()}-{id(self):x}.sock"
        self._log = folder / "mariadbd.log"
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Install the system tables, start the server and make its user."""
        self._port = free_port()
        options = [f"--datadir={self._data}", f"--user={_system_user()}", "--auth-root-authentication-method=normal"]
        subprocess.run([self._installer, "--no-defaults", "--skip-test-db", *options], check=True, capture_output=True)
        try:
            self.start()
            self.execute(f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'")
            self.execute(f"GRANT ALL ON *.* TO '{USER}'@'%'")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    def url(self, database: str, password: str = PASSWORD) -> str:
        """SQLAlchemy URL of a database."""
        return f"mysql+asyncmy://{USER}:{password}@{self._host}:{self._port}/{database}"

    def create_database(self, name: str) -> str:
        """Make a database, with a server default on which no table should depend, and return its URL."""
        self.execute(f"CREATE DATABASE {name} CHARACTER SET latin1")
        return self.url(name)

    def execute(self, statement: str) -> None:
        """Run a statement as the server's root."""
        subprocess.run(
            [self._client, "--no-defaults", f"--socket={self._socket}", "--user=root", f"--execute={statement}"],
            check=True,
            capture_output=True,
        )

    def start(self) -> None:
        """Start the server and wait until it responds."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MariaDB did not start:\n{self._log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Shut the server down."""
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """End the server as a crash would."""
        if self._process:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _command(self) -> list[str]:
        return [
            self._daemon,
            "--no-defaults",
            f"--datadir={self._data}",
            f"--user={_system_user()}",
            f"--socket={self._socket}",
            f"--port={self._port}",
            f"--pid-file={self._data}/mariadbd.pid",
            f"--tmpdir={self._data}",  # a server that starts removes the temporary tables it finds, whoever's they are
            f"--bind-address={self._host}",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=64M",
            "--innodb-flush-log-at-trx-commit=2",  # its files outlive no machine
        ]

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except subprocess.CalledProcessError:
            return False
        return True


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise FileNotFoundError(f"MariaDB is not installed here: no {name}.")
    return found


def _system_user() -> str:
    """Return the user that runs the server: this one, root included, since its files are in a folder of this user."""
    return getpass.getuser()
