"""Answers that nobody reads: back-pressure through Serve, and a bound on what waits for a client.

Serve takes whatever an application sends and keeps it until the client has read it (``MessageQueue`` in
``ray/serve/_private/http_util.py``, Ray 2.60; with HAProxy too, since the application runs in a thread of its own). So
the server says how far it has come (``api.acknowledge``), and ``FlowControlMiddleware``, the outermost layer of the
application, sends no more than ``http.max_unread_bytes_per_answer`` beyond that.

Where the server says nothing, an answer is only known to be read when all of it is: then ``http.max_unread_bytes``
bounds what is on the way to all clients, half of it for each.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.middleware.acknowledgements import EXTENSION, ResponseUnread
from deployments.api.response.problems import response_to
from pipeline.errors import ServiceBusy
from pipeline.ports import Clock
from pipeline.settings import HttpSettings

logger = logging.getLogger(__name__)

PIECE_BYTES = 64 * 1024
"""The most that is sent in one message; also what an answer may have without anybody waiting for its client."""
RELEASE_KEY = "murmuration.held"
"""Key of a scope that holds what is let go when the answer has been read."""


class UnreadBudget:
    """What is on the way to clients whose server does not say how far it has come.

    Args:
        limit_bytes: for all together; a client has half of it. An answer that is longer than that counts as so much,
            and is the only one of its client's.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._by_client: dict[str, int] = {}
        self._changed = asyncio.Condition()

    @property
    def total_bytes(self) -> int:
        """On the way to all clients."""
        return sum(self._by_client.values())

    def share_of(self, size_bytes: int) -> int:
        """Return what an answer of a size counts as."""
        return min(size_bytes, self._limit_bytes // 2)

    async def take(self, client: str, size_bytes: int) -> None:
        """Count so many bytes more, once there is room for them."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._has_room(client, size_bytes))
            self._by_client[client] = self._by_client.get(client, 0) + size_bytes

    async def give_back(self, client: str, size_bytes: int) -> None:
        """So many bytes have been read, or never will be."""
        async with self._changed:
            left = self._by_client.get(client, 0) - size_bytes
            if left > 0:
                self._by_client[client] = left
            else:
                self._by_client.pop(client, None)
            self._changed.notify_all()

    def _has_room(self, client: str, size_bytes: int) -> bool:
        own = self._by_client.get(client, 0) + size_bytes
        return own <= self._limit_bytes // 2 and self.total_bytes + size_bytes <= self._limit_bytes


class FlowControlMiddleware:
    """The middleware that sends an answer no faster than it is read, and gives up a client that does not read.

    A request lasts until its answer is read, so that whatever counts requests counts it until then.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope["app"].state
        services = state.services
        answer = _ResponseFlow(scope, receive, send, services.settings.http, services.clock, state.unread)
        try:
            async with AsyncExitStack() as held:
                await self._app({**scope, RELEASE_KEY: held}, answer.receive, answer.send)
                await answer.read()
        except Exception:
            if answer.given_up is None:
                raise
            services.count("answers_given_up")
            logger.warning("an answer was given up: %s", answer.given_up, extra={"path": scope["path"][:200]})
            if answer.started:
                raise answer.given_up from None
            busy = ServiceBusy("Too many answers wait to be read: read those first, or ask again later.", 5)
            await response_to(Request(scope), busy)(scope, receive, send)
        finally:
            await asyncio.shield(answer.close())


def until_read(request: Request) -> AsyncExitStack:
    """Return what is closed when the request's answer has been read, or its client is given up or gone."""
    held = request.scope[RELEASE_KEY]
    assert isinstance(held, AsyncExitStack)  # noqa: S101 (set by FlowControlMiddleware)
    return held


class _ResponseFlow:
    """One request's messages in both directions.

    Attributes:
        started: something of the answer was sent.
        given_up: why the client is not waited for any longer.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, settings: HttpSettings, clock: Clock, unread: UnreadBudget
    ) -> None:
        self.started = False
        self.given_up: ResponseUnread | None = None
        self._receive = receive
        self._send = send
        self._settings = settings
        self._clock = clock
        self._unread = unread
        self._client = _client_of(scope)
        self._acknowledged = EXTENSION in (scope.get("extensions") or {})
        self._messages: deque[Message] = deque()
        self._receiving = asyncio.Lock()
        self._gone = False
        self._start: Message | None = None
        self._announced_bytes = 0
        self._sent_bytes = 0
        self._read_bytes = 0
        self._counted_bytes = 0
        self._waited_s = 0.0

    async def receive(self) -> Message:
        """Return the next message of the request."""
        while not self._messages and not self._gone:
            async with self._receiving:
                if not self._messages and not self._gone:
                    await self._pull()
        return self._messages.popleft() if self._messages else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a part of the answer, once its client has read enough of what came before.

        Raises:
            ResponseUnread: it does not.
        """
        if message["type"] == "http.response.start":
            self._announced_bytes = int(Headers(raw=message["headers"]).get("content-length", "0"))
            if self._announced_bytes <= PIECE_BYTES:
                self.started = True
                await self._send(message)
            else:
                self._start = message  # it goes with the first of the body, once there is room for all of it
        elif message["type"] == "http.response.body":
            for piece in _split_message(message):
                await self._send_piece(piece)
        else:
            await self._send(message)

    async def _send_piece(self, message: Message) -> None:
        size_bytes = len(message.get("body", b""))
        if self._acknowledged:
            await self._wait_for_reader(self._settings.max_unread_bytes_per_answer - size_bytes)
        else:
            await self._count(max(self._announced_bytes, self._sent_bytes + size_bytes))
        if self._start is not None:
            start, self._start, self.started = self._start, None, True
            await self._send(start)
        self._sent_bytes += size_bytes
        await self._send(message)

    async def read(self) -> None:
        """Return when the client has read its answer, or is gone. Raises ``ResponseUnread``."""
        if self._sent_bytes <= PIECE_BYTES:
            return
        if self._acknowledged:
            await self._wait_for_reader(0)
            return
        slowest_s = self._sent_bytes / self._settings.answer_min_bytes_per_s
        async with self._give_up_after(self._settings.answer_idle_timeout_s + slowest_s):
            while not self._gone:
                await self._pull_one()

    async def _wait_for_reader(self, unread_bytes: int) -> None:
        """Return when at most so many bytes are unread."""
        while self._sent_bytes - self._read_bytes > max(0, unread_bytes) and not self._gone:
            begun_at = self._clock.monotonic()
            async with self._give_up_after(self._settings.answer_idle_timeout_s):
                await self._pull_one()
            self._waited_s += self._clock.monotonic() - begun_at
            self._check_rate()

    def _check_rate(self) -> None:
        waited_s = self._waited_s - self._settings.answer_idle_timeout_s
        slowest = self._settings.answer_min_bytes_per_s
        if waited_s > 0 and self._read_bytes < waited_s * slowest:
            raise self._give_up(f"it is read at less than {slowest:,} bytes a second")

    async def _pull_one(self) -> None:
        """Take one message, or what another has taken meanwhile."""
        before = self._read_bytes
        async with self._receiving:
            if self._read_bytes == before and not self._gone:
                await self._pull()

    async def _pull(self) -> None:
        message = await self._receive()
        if message["type"] == EXTENSION:
            self._read_bytes = max(self._read_bytes, message["bytes"])
        elif message["type"] == "http.disconnect":
            self._gone = True
        else:
            self._messages.append(message)

    async def _count(self, size_bytes: int) -> None:
        """Count an answer of so many bytes, as far as it isn't."""
        more = self._unread.share_of(size_bytes) - self._counted_bytes
        if size_bytes <= PIECE_BYTES or more <= 0:
            return
        async with self._give_up_after(self._settings.answer_idle_timeout_s):
            await self._unread.take(self._client, more)
        self._counted_bytes += more

    @asynccontextmanager
    async def _give_up_after(self, seconds: float) -> AsyncIterator[None]:
        """Give the client up if what is done within takes longer."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise self._give_up(f"nothing of it was read for {seconds:g} s") from error

    def _give_up(self, why: str) -> ResponseUnread:
        self.given_up = ResponseUnread(why)
        return self.given_up

    async def close(self) -> None:
        """The request is over: nothing of it counts any more."""
        counted, self._counted_bytes = self._counted_bytes, 0
        if counted:
            await self._unread.give_back(self._client, counted)


def _split_message(message: Message) -> Iterator[Message]:
    """Yield a message in pieces of at most ``PIECE_BYTES``."""
    body = message.get("body", b"")
    if len(body) <= PIECE_BYTES:
        yield message
        return
    more_body = message.get("more_body", False)
    for start in range(0, len(body), PIECE_BYTES):
        end = start + PIECE_BYTES
        yield {**message, "body": bytes(body[start:end]), "more_body": more_body or end < len(body)}


def _client_of(scope: Scope) -> str:
    """Return who shares a bound: a key, else an address."""
    authorization = Headers(scope=scope).get("authorization")
    keys = scope["app"].state.services.settings.auth.keys
    return authorization if keys and authorization else str((scope.get("client") or ("",))[0])
