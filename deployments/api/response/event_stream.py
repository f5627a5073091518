"""Server-sent events (WHATWG HTML, §9.2) over sse-starlette: what all our streams have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

HEARTBEAT_S = 15
"""A comment is sent this often, so that nothing on the way takes the connection for dead."""
SEND_TIMEOUT_S = 600.0
"""A client that takes nothing for so long is given up, should ``FlowControlMiddleware`` not have done so."""


class EventStream(EventSourceResponse):
    """A stream of events with heartbeats, which ends when its client goes away.

    Args:
        events: what is sent; pulled one by one, so a slow client holds up nobody else.
        on_close: called once when the stream has ended, however it did; must not block.
    """

    def __init__(self, events: AsyncIterator[ServerSentEvent], on_close: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            events,
            headers={"Cache-Control": "no-cache"},
            ping=HEARTBEAT_S,
            ping_message_factory=lambda: ServerSentEvent(comment="still here", sep="\n"),
            send_timeout=SEND_TIMEOUT_S,
            sep="\n",
        )
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close()
