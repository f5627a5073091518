"""Probing a confined process: the targets of forbidden acts, and the result of trying one.

The acts themselves are in ``forbidden_acts``.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.domain.confinement_level import DONE


@dataclass(frozen=True, slots=True)
class ProbeTargets:
    """The targets of forbidden acts, made by ``targets``. All but the last belong to another process.

    Attributes:
        folder: a folder that every user may write.
        file: a file in it that every user may write.
        pid: the other process, which the probe must not reach.
        port: TCP port on 127.0.0.1 at which the other process listens.
        name: name of the abstract Unix socket at which it listens.
        memory_bytes: more memory than the probe may allocate.
    """

    folder: str
    file: str
    pid: int
    port: int
    name: str
    memory_bytes: int

    def encode(self) -> dict[str, Any]:
        """Return the targets as JSON values."""
        return asdict(self)


@contextmanager
def targets(memory_bytes: int) -> Iterator[ProbeTargets]:
    """Provide targets until the block ends; ``memory_bytes`` is the memory that the probe may allocate."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="murmuration-probe-")))
        folder.chmod(0o777)
        for name in ("file", "to-rename", "to-rename-too", "to-remove", "to-unlink"):
            (folder / name).write_bytes(b"content")
            (folder / name).chmod(0o666)
        (folder / "empty").mkdir(mode=0o777)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        name = f"murmuration-probe-{os.getpid()}-{tcp.getsockname()[1]}"
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{name}")
        abstract.listen()
        yield ProbeTargets(str(folder), str(folder / "file"), os.getpid(), tcp.getsockname()[1], name, 2 * memory_bytes)


@dataclass(frozen=True, slots=True)
class ForbiddenAct:
    """An act that the confinement should forbid.

    Attributes:
        part: the attribute of ``Confinement`` that the act belongs to.
        name: name of the act, shown in reports.
        do: performs the act; raises ``OSError`` if it is refused.
        reached: errors that the kernel raises only after it has permitted the act.
    """

    part: str
    name: str
    do: Callable[[ProbeTargets], object]
    reached: frozenset[str] = frozenset()

    def try_act(self, targets: ProbeTargets) -> str:
        """Perform the act; return ``DONE``, or the name of the ``errno`` with which it was refused."""
        try:
            self.do(targets)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "EPERM")
            return DONE if name in self.reached else name
        except (MemoryError, RuntimeError):  # raised by Python when it gets no memory or no thread
            return "ENOMEM"
        return DONE
