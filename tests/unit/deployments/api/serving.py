"""A stand-in for Serve between the server and the application: it buffers all messages in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class KeepsAll:
    """A small version of ``MessageQueue`` and ``ASGIReceiveProxy`` in ``ray/serve/_private/http_util.py``.

    Attributes:
        kept_bytes: bytes of responses that are buffered now.
        most_bytes: the largest value of ``kept_bytes`` so far.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.kept_bytes = 0
        self.most_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request to the application."""
        inbox: asyncio.Queue[Message] = asyncio.Queue()
        outbox: asyncio.Queue[Message] = asyncio.Queue()

        async def fetch() -> None:
            while (message := await receive())["type"] != "http.disconnect":
                inbox.put_nowait(message)
            inbox.put_nowait(message)

        async def keep(message: Message) -> None:
            self.kept_bytes += len(message.get("body", b""))
            self.most_bytes = max(self.most_bytes, self.kept_bytes)
            outbox.put_nowait(message)

        fetching = asyncio.create_task(fetch())
        running = asyncio.create_task(self._run(scope, inbox.get, keep, outbox))
        try:
            while (message := await outbox.get())["type"] != "end":
                await send(message)
                self.kept_bytes -= len(message.get("body", b""))
            await running
        finally:
            fetching.cancel()
            running.cancel()

    async def _run(self, scope: Scope, receive: Receive, send: Send, outbox: asyncio.Queue[Message]) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            outbox.put_nowait({"type": "end"})


@dataclass
class Reader:
    """A client with its own connection, whose reading a test controls.

    Attributes:
        sent: the messages of its request.
        may_read: while cleared, the client reads nothing.
        on_read: called with each part that the client reads.
    """

    path: str
    query: str = ""
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    address: str = "192.0.2.1"
    sent: list[Message] = field(default_factory=lambda: [{"type": "http.request", "body": b"", "more_body": False}])
    on_read: Callable[[bytes], object] = lambda _: None

    def __post_init__(self) -> None:
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.status: int | None = None
        self.answer_headers: dict[str, str] = {}
        self.content = bytearray()
        self.ended = asyncio.Event()

    def scope(self, app: Any) -> Scope:
        """Return the ASGI scope of the request."""
        return {
            "type": "http",
            "http_version": "1.1",
            "method": self.method,
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in self.headers.items()],
            "client": (self.address, 1),
            "server": ("service", 80),
            "scheme": "http",
            "root_path": "",
            "app": app,
        }

    async def receive(self) -> Message:
        """Return the next message of the request, or a disconnect after the response."""
        if self.sent:
            return self.sent.pop(0)
        await self.ended.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Receive a part of the response, once reading is allowed."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.answer_headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        await self.may_read.wait()
        self.content += message.get("body", b"")
        self.on_read(message.get("body", b""))
        if not message.get("more_body", False):
            self.ended.set()

    def leave(self) -> None:
        """Close the connection."""
        self.ended.set()


async def settle_with_threads(turns: int = 400) -> None:
    """Run all tasks and threads until nothing more happens."""
    for _ in range(turns // 20):
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)
