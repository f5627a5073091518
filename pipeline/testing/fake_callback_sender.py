"""A sender of callbacks without a network."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from typing_extensions import override

from pipeline.outbound.webhook_sender import EXCERPT_CHARACTERS, classify_status
from pipeline.ports import CallbackResponse, CallbackSender, DeliveryVerdict, OutboxMessage


@dataclass(slots=True)
class FakeCallbackSender(CallbackSender):
    """A ``CallbackSender`` without a network.

    Attributes:
        receivers: status and body of each URL's response, or ``None`` for a receiver that can't be reached.
        held: events by URL; a receiver responds once its event is set.
        sent: all callbacks, in order, as (message, body).
    """

    receivers: dict[str, tuple[int, str] | None] = field(default_factory=dict)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    sent: list[tuple[OutboxMessage, bytes]] = field(default_factory=list)

    @override
    async def send(self, message: OutboxMessage, body: bytes) -> CallbackResponse:
        """Respond as the receiver of that URL does."""
        self.sent.append((message, body))
        if message.url in self.held:
            await self.held[message.url].wait()
        response = self.receivers.get(message.url)
        if response is None:
            return CallbackResponse(DeliveryVerdict.RETRY, None, "No connection to the receiver.")
        status, text = response
        return CallbackResponse(classify_status(status), status, text[:EXCERPT_CHARACTERS])
