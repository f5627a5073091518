"""Resolves short links of a platform to the post, without a request to any other site."""

from __future__ import annotations

from urllib.parse import urljoin

from pipeline.crawl.diagnosis import private_or_removed_error, rate_limited_error
from pipeline.domain.links.platforms import Platform
from pipeline.errors import SourceUnreachable
from pipeline.net import GuardedClient

MAX_HOPS = 5
MAX_BODY_BYTES = 1 << 40
"""No limit in practice: the body is not read."""

_USER_AGENT = {"User-Agent": "facebookexternalhit/1.1"}
"""The user agent that yt-dlp sends for TikTok's short links: TikTok redirects a browser to the app store instead."""


async def resolve_short_link(platform: Platform, url: str, client: GuardedClient, timeout_s: float) -> str:
    """Return the address of the post that a platform's link leads to.

    Raises:
        UnsupportedLink: the link is not the platform's, or redirects to another site.
        PrivateOrRemoved: the link does not redirect to a post.
        RateLimited: the platform received too many requests.
        UrlNotAllowed, SourceUnreachable, SourceTimeout: as ``GuardedClient``.
    """
    for _ in range(MAX_HOPS):
        address = platform.canonical(url)
        if address is not None:
            return address
        url = await _next_hop(platform, url, client, timeout_s)
    raise SourceUnreachable(f"The short link was redirected more than {MAX_HOPS} times.")


async def _next_hop(platform: Platform, url: str, client: GuardedClient, timeout_s: float) -> str:
    async with client.stream(
        "GET", url, headers=_USER_AGENT, max_bytes=MAX_BODY_BYTES, deadline_s=timeout_s
    ) as response:
        location = str(response.headers.get("location", ""))
        if response.status in (301, 302, 303, 307, 308) and location:
            return urljoin(url, location)
        if response.status == 429:
            raise rate_limited_error(platform.name, response.headers.get("retry-after", ""))
        if response.status >= 500:
            raise SourceUnreachable(f"{platform.name} answered {response.status}.")
        raise private_or_removed_error(platform.name)
