"""Backpressure for responses: a limit on the bytes that wait for a slow client.

Serve accepts everything that an application sends and buffers it until the client has read it (``MessageQueue`` in
``ray/serve/_private/http_util.py``, Ray 2.60; with HAProxy too, since the application runs in a thread of its own). The
server therefore acknowledges what it has sent (``middleware.acknowledgements``), and ``FlowControlMiddleware``, the
outermost layer of the application, sends at most ``http.max_unread_bytes_per_answer`` beyond that.

Without acknowledgements, a response is only known to be read once all of it has been. Then ``http.max_unread_bytes``
limits the bytes on the way to all clients, and half of it those to one client.
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
from deployments.api.services import Services
from pipeline.errors import ServiceBusy
from pipeline.ports import Clock
from pipeline.settings import HttpSettings

logger = logging.getLogger(__name__)

PIECE_BYTES = 64 * 1024
"""The most bytes in one message. A response of at most this size is sent without waiting for the client."""
RELEASE_KEY = "murmuration.held"
"""Key of a scope that holds the exit stack to close when the response has been read."""


class UnreadBudget:
    """The bytes on the way to clients whose server sends no acknowledgements.

    Args:
        limit_bytes: the limit for all clients together; one client may have half of it. A longer response counts as
            that half, so that it is its client's only one.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._by_client: dict[str, int] = {}
        self._changed = asyncio.Condition()

    @property
    def total_bytes(self) -> int:
        """Bytes on the way to all clients."""
        return sum(self._by_client.values())

    def counted_bytes(self, size_bytes: int) -> int:
        """Return the bytes that a response of this size counts as."""
        return min(size_bytes, self._limit_bytes // 2)

    async def reserve(self, client: str, size_bytes: int) -> None:
        """Wait until the limits allow ``size_bytes`` more, then count them."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._has_room(client, size_bytes))
            self._by_client[client] = self._by_client.get(client, 0) + size_bytes

    async def release(self, client: str, size_bytes: int) -> None:
        """Stop counting ``size_bytes``, which were read or never will be."""
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
    """The middleware that sends a response no faster than it is read, and disconnects a client that does not read.

    A request lasts until its response has been read, so that limits on requests count it until then.
    """

    def __init__(self, app: ASGIApp, services: Services, unread: UnreadBudget) -> None:
        self._app = app
        self._services = services
        self._unread = unread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process a request, and return once its response has been read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        services, client = self._services, _client_name(scope, has_keys=bool(self._services.settings.auth.keys))
        response = _ResponseFlow(scope, receive, send, services.settings.http, services.clock, self._unread, client)
        try:
            async with AsyncExitStack() as held:
                await self._app({**scope, RELEASE_KEY: held}, response.receive, response.send)
                await response.wait_until_read()
        except Exception:
            if response.unread_error is None:
                raise
            services.count("answers_given_up")
            logger.warning("abandoned a response: %s", response.unread_error, extra={"path": scope["path"][:200]})
            if response.started:
                raise response.unread_error from None
            busy = ServiceBusy("Too many responses wait to be read: read those first, or try again later.", 5)
            await response_to(Request(scope), busy)(scope, receive, send)
        finally:
            await asyncio.shield(response.close())


def until_read(request: Request) -> AsyncExitStack:
    """Return the exit stack that closes when the response has been read, or its client is disconnected or gone."""
    held = request.scope[RELEASE_KEY]
    assert isinstance(held, AsyncExitStack)  # noqa: S101 (set by FlowControlMiddleware)
    return held


class _ResponseFlow:
    """The messages of one request in both directions.

    Attributes:
        started: whether any part of the response was sent.
        unread_error: the reason for no longer waiting for the client.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        settings: HttpSettings,
        clock: Clock,
        unread: UnreadBudget,
        client: str,
    ) -> None:
        self.started = False
        self.unread_error: ResponseUnread | None = None
        self._receive = receive
        self._send = send
        self._settings = settings
        self._clock = clock
        self._unread = unread
        self._client = client
        self._acknowledged = EXTENSION in (scope.get("extensions") or {})
        self._messages: deque[Message] = deque()
        self._receiving = asyncio.Lock()
        self._disconnected = False
        self._start: Message | None = None
        self._announced_bytes = 0
        self._sent_bytes = 0
        self._read_bytes = 0
        self._counted_bytes = 0
        self._waited_s = 0.0

    async def receive(self) -> Message:
        """Return the next message of the request."""
        while not self._messages and not self._disconnected:
            async with self._receiving:
                if not self._messages and not self._disconnected:
                    await self._receive_message()
        return self._messages.popleft() if self._messages else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a part of the response, once its client has read enough of the parts before it.

        Raises:
            ResponseUnread: the client does not read, or reads too slowly.
        """
        if message["type"] == "http.response.start":
            self._announced_bytes = int(Headers(raw=message["headers"]).get("content-length", "0"))
            if self._announced_bytes <= PIECE_BYTES:
                self.started = True
                await self._send(message)
            else:
                self._start = message  # sent with the first piece of the body, once the limits allow all of it
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

    async def wait_until_read(self) -> None:
        """Wait until the client has read its response or has disconnected. Raises ``ResponseUnread``."""
        if self._sent_bytes <= PIECE_BYTES:
            return
        if self._acknowledged:
            await self._wait_for_reader(0)
            return
        slowest_s = self._sent_bytes / self._settings.answer_min_bytes_per_s
        async with self._give_up_after(self._settings.answer_idle_timeout_s + slowest_s):
            while not self._disconnected:
                await self._receive_one()

    async def _wait_for_reader(self, unread_bytes: int) -> None:
        """Wait until at most ``unread_bytes`` are unread."""
        while self._sent_bytes - self._read_bytes > max(0, unread_bytes) and not self._disconnected:
            begun_at = self._clock.monotonic()
            async with self._give_up_after(self._settings.answer_idle_timeout_s):
                await self._receive_one()
            self._waited_s += self._clock.monotonic() - begun_at
            self._check_rate()

    def _check_rate(self) -> None:
        waited_s = self._waited_s - self._settings.answer_idle_timeout_s
        slowest = self._settings.answer_min_bytes_per_s
        if waited_s > 0 and self._read_bytes < waited_s * slowest:
            raise self._unread_for(f"the client reads less than {slowest:,} bytes per second")

    async def _receive_one(self) -> None:
        """Receive one message, unless another caller has received an acknowledgement meanwhile."""
        before = self._read_bytes
        async with self._receiving:
            if self._read_bytes == before and not self._disconnected:
                await self._receive_message()

    async def _receive_message(self) -> None:
        message = await self._receive()
        if message["type"] == EXTENSION:
            self._read_bytes = max(self._read_bytes, message["bytes"])
        elif message["type"] == "http.disconnect":
            self._disconnected = True
        else:
            self._messages.append(message)

    async def _count(self, size_bytes: int) -> None:
        """Count a response of ``size_bytes``, less the bytes already counted."""
        more = self._unread.counted_bytes(size_bytes) - self._counted_bytes
        if size_bytes <= PIECE_BYTES or more <= 0:
            return
        async with self._give_up_after(self._settings.answer_idle_timeout_s):
            await self._unread.reserve(self._client, more)
        self._counted_bytes += more

    @asynccontextmanager
    async def _give_up_after(self, seconds: float) -> AsyncIterator[None]:
        """Raise ``ResponseUnread`` if the body of the context takes longer than ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise self._unread_for(f"the client read nothing for {seconds:g} s") from error

    def _unread_for(self, reason: str) -> ResponseUnread:
        self.unread_error = ResponseUnread(reason)
        return self.unread_error

    async def close(self) -> None:
        """Stop counting the bytes of the request."""
        counted, self._counted_bytes = self._counted_bytes, 0
        if counted:
            await self._unread.release(self._client, counted)


def _split_message(message: Message) -> Iterator[Message]:
    """Yield a message as pieces of at most ``PIECE_BYTES``."""
    body = message.get("body", b"")
    if len(body) <= PIECE_BYTES:
        yield message
        return
    more_body = message.get("more_body", False)
    for start in range(0, len(body), PIECE_BYTES):
        end = start + PIECE_BYTES
        yield {**message, "body": bytes(body[start:end]), "more_body": more_body or end < len(body)}


def _client_name(scope: Scope, *, has_keys: bool) -> str:
    """Return the name that unread bytes count against: the key if the service has keys, else the address."""
    authorization = Headers(scope=scope).get("authorization")
    return authorization if has_keys and authorization else str((scope.get("client") or ("",))[0])
