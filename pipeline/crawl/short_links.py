"""Short links of a platform, followed to the post they stand for without ever leaving the platform."""

from __future__ import annotations

from urllib.parse import urljoin

from pipeline.crawl.diagnosis import private_or_removed, rate_limited
from pipeline.domain.links.platforms import Platform
from pipeline.errors import SourceUnreachable
from pipeline.net import GuardedClient

MAX_HOPS = 5
MAX_BODY_BYTES = 1 << 40
"""The body is not read."""

_USER_AGENT = {"User-Agent": "facebookexternalhit/1.1"}
"""What yt-dlp follows TikTok's short links as: a browser is sent to the app store instead."""


async def resolve_short_link(platform: Platform, url: str, client: GuardedClient, timeout_s: float) -> str:
    """The address of the post that a platform's link leads to.

    Raises:
        UnsupportedLink: it is not the platform's, or leads away from it.
        PrivateOrRemoved: it leads nowhere.
        RateLimited: the platform was asked too often.
        UrlNotAllowed, SourceUnreachable, SourceTimeout: as ``GuardedClient``.
    """
    for _ in range(MAX_HOPS):
        address = platform.canonical(url)
        if address is not None:
            return address
        url = await _next_hop(platform, url, client, timeout_s)
    raise SourceUnreachable(f"The short link was forwarded more than {MAX_HOPS} times.")


async def _next_hop(platform: Platform, url: str, client: GuardedClient, timeout_s: float) -> str:
    async with client.stream("GET", url, headers=_USER_AGENT, max_bytes=MAX_BODY_BYTES, deadline_s=timeout_s) as answer:
        location = str(answer.headers.get("location", ""))
        if answer.status in (301, 302, 303, 307, 308) and location:
            return urljoin(url, location)
        if answer.status == 429:
            raise rate_limited(platform.name, answer.headers.get("retry-after", ""))
        if answer.status >= 500:
            raise SourceUnreachable(f"{platform.name} answered {answer.status}.")
        raise private_or_removed(platform.name)
