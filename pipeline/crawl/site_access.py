"""The network, cookies and user agent that the settings give for the site of a link."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from pipeline.errors import ConfigurationError
from pipeline.ports import CrawlRequest
from pipeline.settings import NetworkSettings, PlatformSettings, Settings


@dataclass(frozen=True, slots=True)
class SiteAccess:
    """The network, cookies and user agent for requests to one site."""

    network: NetworkSettings
    cookies: str | None
    user_agent: str | None


def site_access(request: CrawlRequest, settings: Settings) -> SiteAccess:
    """Return the network, cookies and user agent that the settings give for the request's site.

    Raises:
        ConfigurationError: the site's ``cookies_file`` can't be read.
    """
    platforms = settings.crawl.platforms
    name = request.link.kind.value if request.link.kind.platform else host_name_of(request.url)
    labels = name.split(".")
    names = [".".join(labels[start:]) for start in range(len(labels))]
    chosen = next((platforms[each] for each in names if each in platforms), PlatformSettings())
    network = settings.network
    if chosen.proxy is not None:
        network = network.model_copy(update={"proxy": chosen.proxy.get_secret_value()})
    return SiteAccess(network, _cookies(chosen), chosen.user_agent)


def host_name_of(url: str) -> str:
    """Return a URL's host without ``www.``, for error sentences and settings."""
    try:
        return httpx.URL(url).host.removeprefix("www.")
    except httpx.InvalidURL:
        return "that address"


def _cookies(platform: PlatformSettings) -> str | None:
    if platform.cookies is not None:
        return platform.cookies.get_secret_value()
    if platform.cookies_file is None:
        return None
    try:
        return platform.cookies_file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("A cookies_file under crawl.platforms can't be read.") from error
