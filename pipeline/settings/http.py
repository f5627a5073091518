"""Settings of the section ``http``."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings.section import MEBIBYTE, Section


class HttpSettings(Section):
    """The HTTP API."""

    public_url: str | None = None
    """Address at which clients reach the service, for links in answers. Empty: links are relative."""
    cors_origins: tuple[str, ...] = ()
    """Web pages that may call from a browser, by origin (`https://app.example.com`); `*`: all. Empty: none."""
    upload_idle_timeout_s: float = Field(default=30.0, gt=0)
    """Time without any byte after which a body is refused with 408."""
    upload_min_bytes_per_s: int = Field(default=1024, ge=0)
    """Lowest average rate of a body after `upload_idle_timeout_s`; a slower one is refused with 408.
    0: any rate is accepted."""
    resumable_ttl_s: float = Field(default=86_400.0, gt=0)
    """Time without any new byte after which a resumable upload is deleted."""
    max_json_bytes: int = Field(default=64 * 1024, ge=1024)
    """Largest JSON body. That of `callback/test`, which accepts whole records, may have 1 MiB, as forms may."""
    max_concurrent_requests: int | None = Field(default=None, ge=1)
    """Requests in progress in one Ingress replica; further ones are refused with 503. Health and documentation do not
    count. Empty: nine tenths of the Ingress's `max_ongoing_requests` in the Serve config. It is never more, since
    requests that Serve itself holds back wait, health checks among them."""
    max_lasting_requests: int | None = Field(default=None, ge=1)
    """Requests in progress that may last: uploads, event streams, `/v1/audio`, `wait_s`, `extract_audio`, summaries.
    Further ones are refused with 503; the rest of the requests is a reserve for short ones. Empty: seven tenths of
    `max_ongoing_requests`."""
    max_concurrent_requests_per_client: int | None = Field(default=None, ge=1)
    """Requests of one client in progress in one Ingress replica; further ones are refused with 429. A client is a key,
    and without keys an address (of IPv6, its /64); the loopback address has no limit. Empty: a fifth of
    `max_ongoing_requests`."""
    max_page_bytes: int = Field(default=8 * MEBIBYTE, ge=64 * 1024)
    """Size of a page of `tasks/query`. A page ends with the first task that makes it larger, and links to the next."""
    max_unread_bytes_per_answer: int = Field(default=512 * 1024, ge=128 * 1024)
    """Bytes of an answer that are sent ahead of a slow client, if the server reports how much it has sent (see
    `docs/operations.md`, Limits of a request)."""
    max_unread_bytes: int = Field(default=512 * MEBIBYTE, ge=MEBIBYTE)
    """If the server does not report it: bytes on the way to all clients of one Ingress replica together, in answers
    that are not read to their end. A client has half of them. A larger answer must be the only one of its client."""
    answer_idle_timeout_s: float = Field(default=60.0, gt=0)
    """Time without any byte read after which an answer is abandoned, with its connection."""
    answer_min_bytes_per_s: int = Field(default=16 * 1024, ge=1)
    """Lowest average rate at which an answer is read, after `answer_idle_timeout_s` of waiting; a slower one is
    abandoned, with its connection."""
    max_results_in_hand: int = Field(default=4, ge=1)
    """Transcripts that one Ingress replica reads and encodes at the same time; others wait, the clients in turn."""
    max_replays_in_hand: int = Field(default=16, ge=1)
    """Finished transcripts held for event streams at the same time; others wait, the clients in turn."""
