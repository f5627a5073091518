"""Sends callbacks as signed POST requests, and classifies the responses.

Headers and signature follow Standard Webhooks 1.0 (https://www.standardwebhooks.com). ``webhook-id`` is the same in all
deliveries of a callback. ``webhook-signature`` is sent if a secret is configured.
"""

from __future__ import annotations

import binascii
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pydantic import SecretStr
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook
from typing_extensions import override

from pipeline.errors import ConfigurationError, MurmurationError, SourceError, UrlNotAllowed
from pipeline.net import GuardedClient, StreamedResponse
from pipeline.ports import CallbackResponse, CallbackSender, Clock, DeliveryVerdict, OutboxMessage
from pipeline.settings import CallbackSettings

EXCERPT_CHARACTERS = 512
"""Most characters of a receiver's response that are recorded."""

EXCERPT_BYTES = 4 * EXCERPT_CHARACTERS
"""Most bytes of a response that are read: UTF-8 uses at most four bytes for a character."""

MAX_BODY_BYTES = 1 << 40
"""No limit in practice: only the excerpt of a response is read."""

RETRIED_STATUSES = frozenset({408, 425, 429})
"""Client errors that are temporary and not caused by the request itself (RFC 9110, RFC 8470, RFC 6585)."""


class WebhookSender(CallbackSender):
    """A sender of signed callbacks.

    Args:
        client: the guarded client, because clients name the receivers' addresses.
        settings: the timeout and the secret.
        clock: for the signature's timestamp and for dates in ``Retry-After``.

    Raises:
        ConfigurationError: the secret does not have the form that Standard Webhooks requires.
    """

    def __init__(self, client: GuardedClient, settings: CallbackSettings, clock: Clock) -> None:
        self._client = client
        self._timeout_s = settings.timeout_s
        self._webhook_signer = _webhook_signer(settings.secret)
        self._clock = clock

    @override
    async def send(self, message: OutboxMessage, body: bytes) -> CallbackResponse:
        """Post the body once and classify the response. Redirects are not followed."""
        try:
            async with self._client.stream(
                "POST",
                message.url,
                headers=self._headers(message.message_id, body),
                content=body,
                max_bytes=MAX_BODY_BYTES,
                deadline_s=self._timeout_s,
            ) as response:
                return await self._to_response(response)
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

    async def _to_response(self, response: StreamedResponse) -> CallbackResponse:
        return CallbackResponse(
            verdict=classify_status(response.status),
            status_code=response.status,
            message=await _excerpt_message(response),
            retry_after_s=retry_after_s(response.headers.get("retry-after", ""), self._clock.now()),
        )


def classify_status(status: int) -> DeliveryVerdict:
    """Return the verdict on a delivery by its HTTP status.

    2xx is delivered, a temporary failure is retried, and any other status is final. Redirects are final too: a client
    whose receiver has moved must name the new address in its next task.
    """
    if 200 <= status < 300:
        return DeliveryVerdict.DELIVERED
    if status >= 500 or status in RETRIED_STATUSES:
        return DeliveryVerdict.RETRY
    return DeliveryVerdict.FINAL


def retry_after_s(value: str, now: datetime) -> float | None:
    """Return the seconds in a ``Retry-After`` (RFC 9110, §10.2.3), a number or a date; ``None`` if it is neither."""
    if value.strip().isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())


async def _excerpt_message(response: StreamedResponse) -> str:
    """Return the beginning of the response.

    The response of a host that is not public is withheld: the client who named the host must not read it.
    """
    if not response.public:
        return "The receiver's answer is not recorded, because its host is not public."
    try:
        return (await _read_excerpt(response)).decode("utf-8", errors="replace")[:EXCERPT_CHARACTERS]
    except MurmurationError as error:
        return error.message  # the status arrived in time, and it alone decides


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
