"""Server-sent events (WHATWG HTML, §9.2) over sse-starlette: the behaviour that all streams share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

HEARTBEAT_S = 15
"""Interval of comments, so that no intermediary closes the connection as idle."""
SEND_TIMEOUT_S = 600.0
"""A client that accepts nothing for this long is disconnected, if ``FlowControlMiddleware`` has not done so before."""


class EventStream(EventSourceResponse):
    """A stream of events with heartbeats, which ends when its client disconnects.

    Args:
        events: the events, pulled one by one, so that a slow client delays nobody else.
        on_close: called once when the stream has ended for any reason. It must not block.
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
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close()
