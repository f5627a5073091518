"""Callbacks as their receivers see them: one signed POST, and what its answer means.

Headers and signature follow Standard Webhooks 1.0 (https://www.standardwebhooks.com): ``webhook-id`` stays the same
across attempts, ``webhook-signature`` is there when a secret is configured.
"""

from __future__ import annotations

import binascii
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pydantic import SecretStr
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from pipeline.errors import ConfigurationError, MurmurationError, SourceError, UrlNotAllowed
from pipeline.net import GuardedClient, StreamedResponse
from pipeline.ports import CallbackResponse, Clock, DeliveryVerdict, OutboxMessage
from pipeline.settings import CallbackSettings

EXCERPT_CHARACTERS = 512
"""How much of a receiver's answer is recorded."""

EXCERPT_BYTES = 4 * EXCERPT_CHARACTERS
"""UTF-8 takes at most four bytes for a character."""

MAX_BODY_BYTES = 1 << 40
"""An answer may be as long as it likes: no more than the excerpt is read of it."""

RETRIED_STATUSES = frozenset({408, 425, 429})
"""Client errors that are about the moment, not about the request (RFC 9110, RFC 8470, RFC 6585)."""


class WebhookSender:
    """Sends callbacks; a ``CallbackSender``.

    Args:
        client: the guarded client; receivers are addresses that clients handed in.
        settings: the time limit and the secret.
        clock: for the signature's timestamp and for ``Retry-After`` dates.

    Raises:
        ConfigurationError: the secret is not what Standard Webhooks takes.
    """

    def __init__(self, client: GuardedClient, settings: CallbackSettings, clock: Clock) -> None:
        self._client = client
        self._timeout_s = settings.timeout_s
        self._webhook_signer = _webhook_signer(settings.secret)
        self._clock = clock

    async def send(self, message: OutboxMessage, body: bytes) -> CallbackResponse:
        """Posts the body once and classifies what comes back. Redirects are not followed."""
        try:
            async with self._client.stream(
                "POST",
                message.url,
                headers=self._headers(message.message_id, body),
                content=body,
                max_bytes=MAX_BODY_BYTES,
                deadline_s=self._timeout_s,
            ) as response:
                return await self._answer(response)
        except UrlNotAllowed as error:
            return CallbackResponse(DeliveryVerdict.FINAL, None, error.message)
        except SourceError as error:
            return CallbackResponse(DeliveryVerdict.RETRY, None, error.message)

    def _headers(self, message_id: str, body: bytes) -> dict[str, str]:
        now = self._clock.now()
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
        }
        if self._webhook_signer is not None:
            headers["webhook-signature"] = self._webhook_signer.sign(message_id, now, body.decode())
        return headers

    async def _answer(self, response: StreamedResponse) -> CallbackResponse:
        return CallbackResponse(
            verdict=classify_status(response.status),
            status_code=response.status,
            message=await _excerpt_message(response),
            retry_after_s=retry_after_s(response.headers.get("retry-after", ""), self._clock.now()),
        )


def classify_status(status: int) -> DeliveryVerdict:
    """What an HTTP status means for a callback: 2xx delivered it, a passing trouble is tried again, the rest is final.

    Redirects are final: a receiver that moves has to be told of at the next task, not guessed at.
    """
    if 200 <= status < 300:
        return DeliveryVerdict.DELIVERED
    if status >= 500 or status in RETRIED_STATUSES:
        return DeliveryVerdict.RETRY
    return DeliveryVerdict.FINAL


def retry_after_s(value: str, now: datetime) -> float | None:
    """Seconds that ``Retry-After`` (RFC 9110, §10.2.3) asks for, as a number or a date; ``None`` if it is neither."""
    if value.strip().isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())


async def _excerpt_message(response: StreamedResponse) -> str:
    """The beginning of the answer. What a host that is not public says is not for the client who named it."""
    if not response.public:
        return "The receiver's answer is not recorded, because its host is not public."
    try:
        return (await _read_excerpt(response)).decode("utf-8", errors="replace")[:EXCERPT_CHARACTERS]
    except MurmurationError as error:
        return error.message  # the status came in time, and that is what counts


async def _read_excerpt(response: StreamedResponse) -> bytes:
    beginning = b""
    async for block in response.aiter_bytes():
        beginning += block
        if len(beginning) >= EXCERPT_BYTES:
            break
    return beginning


def _webhook_signer(secret: SecretStr | None) -> Webhook | None:
    if secret is None:
        return None
    try:
        return Webhook(secret.get_secret_value())
    except (binascii.Error, ValueError, EmptyWebhookSecretError) as error:
        raise ConfigurationError("callback.secret must be `whsec_` followed by the secret in base64.") from error
