"""What yt-dlp says went wrong, as errors whose sentences tell a user what to do.

yt-dlp raises one class for most troubles and tells them apart in words; its extractors share those words
(``raise_login_required``, ``raise_geo_restricted`` …). The order of the rules matters: a private video also asks for a
login, and a removed one may be "not available in your country" as well.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pipeline.crawl.extractor_messages import ExtractFailure
from pipeline.errors import (
    CookiesRequired,
    ExtractorOutdated,
    GeoBlocked,
    LiveStream,
    MurmurationError,
    PrivateOrRemoved,
    RateLimited,
    SourceTooLarge,
    SourceUnreachable,
    StorageFull,
    UnsupportedLink,
)

NETWORK_KINDS = frozenset(
    {"TransportError", "ProxyError", "SSLError", "CertificateVerifyError", "IncompleteRead", "RequestError"}
    | {"ContentTooShortError", "NoSupportingHandlers"}
)
"""Classes of yt-dlp's exceptions that are about the way to the site, not about the site."""

_UNAVAILABLE = re.compile(
    r"private|permission to view|removed|deleted|no longer|not exist|doesn't exist|not found|unavailable"
    r"|not available|isn't available|been (?:terminated|suspended|banned)",
    re.IGNORECASE,
)
_GEO = re.compile(
    r"geo.?(?:restrict|block)|(?:your|this) (?:country|location|region)|IP address is blocked|country of residence",
    re.IGNORECASE,
)
_LOGIN = re.compile(
    r"log ?in|sign ?in|logged|cookies|registered users|authenticat|subscri|premium|members|age.?restrict|not a bot"
    r"|purchase",
    re.IGNORECASE,
)
_LIVE = re.compile(r"live event|livestream|not currently live|is live|premieres? (?:in|will)|will begin", re.IGNORECASE)
_RATE_LIMITED = re.compile(r"too many requests|rate.?limit|try again later", re.IGNORECASE)
_FILE_TOO_LARGE = re.compile(rf"\[Errno {errno.EFBIG}\]")
_NO_SPACE = re.compile(rf"\[Errno ({errno.ENOSPC}|{errno.EDQUOT})\]")
_DRM = re.compile(r"\bDRM\b", re.IGNORECASE)

Rule = tuple[Callable[[ExtractFailure], bool], Callable[[str, ExtractFailure], MurmurationError]]


def _message_matches(pattern: re.Pattern[str]) -> Callable[[ExtractFailure], bool]:
    return lambda trouble: bool(pattern.search(trouble.message))


def _kind_is(*kinds: str) -> Callable[[ExtractFailure], bool]:
    return lambda trouble: trouble.kind in kinds


def _status_is(*statuses: int) -> Callable[[ExtractFailure], bool]:
    return lambda trouble: trouble.status in statuses


def private_or_removed(site: str) -> PrivateOrRemoved:
    """What a link leads to is not for us, or not there."""
    return PrivateOrRemoved(f"{site} says that this is private, deleted, or was never there: open the link to check.")


def geo_blocked(site: str) -> GeoBlocked:
    """The site does not serve this server's address."""
    return GeoBlocked(
        f"{site} does not show this where this server is: "
        "the operator can set a proxy elsewhere under crawl.platforms.<site>.proxy."
    )


def rate_limited(site: str, retry_after: str, now: datetime | None = None) -> RateLimited:
    """The site was asked too often; ``retry_after`` is the header of that name."""
    return RateLimited(
        f"{site} was asked too often from here: try later.", _seconds(retry_after, now or datetime.now(UTC))
    )


def _cookies_required(site: str) -> CookiesRequired:
    return CookiesRequired(
        f"{site} shows this only to somebody who is logged in, or wants proof of being a person: the operator can give "
        "cookies of a session under crawl.platforms.<site>.cookies."
    )


def _outdated(site: str, library: str) -> ExtractorOutdated:
    return ExtractorOutdated(
        f"The pages of {site} are no longer what yt-dlp {library} knows: "
        "the operator can update it (pip install -U yt-dlp) and restart the service."
    )


RULES: tuple[Rule, ...] = (
    (
        _kind_is("Playlist"),
        lambda site, _: UnsupportedLink("The link leads to several recordings: send one link for each."),
    ),
    (_kind_is("Live", "UserNotLive"), lambda site, _: _live(site)),
    (_kind_is("NoFormats"), lambda site, _: UnsupportedLink(f"There is nothing to listen to at this link of {site}.")),
    (_kind_is("UnsupportedError", "UnknownExtractor"), lambda site, _: _unsupported(site)),
    (_kind_is("GeoRestrictedError"), lambda site, _: geo_blocked(site)),
    (_status_is(429), lambda site, trouble: rate_limited(site, trouble.retry_after)),
    (_status_is(451), lambda site, _: geo_blocked(site)),
    (_status_is(404, 410), lambda site, _: private_or_removed(site)),
    (_status_is(401, 403), lambda site, _: _cookies_required(site)),
    (lambda trouble: trouble.status is not None, lambda site, trouble: SourceUnreachable(
        f"{site} answered {trouble.status}."
    )),
    (_kind_is(*NETWORK_KINDS), lambda site, _: SourceUnreachable(f"No connection to {site}, or it broke off.")),
    (_kind_is("MemoryError"), lambda site, _: SourceTooLarge(f"A page of {site} is too large to be read.")),
    (_message_matches(_FILE_TOO_LARGE), lambda site, _: SourceTooLarge(
        f"{site} sends a part of the recording that is larger than is taken."
    )),
    (_message_matches(_NO_SPACE), lambda site, _: StorageFull("The server has no room left for temporary files.", 60)),
    (_kind_is("CookieLoadError"), lambda site, _: CookiesRequired(
        f"The cookies given for {site} under crawl.platforms are not in the format of a Netscape cookie file."
    )),
    (_message_matches(re.compile(r"^(?:ERROR: )?No suitable extractor")), lambda site, _: _unsupported(site)),
    (_message_matches(_DRM), lambda site, _: UnsupportedLink(f"The recording at {site} is protected by DRM.")),
    (_message_matches(_LIVE), lambda site, _: _live(site)),
    (_message_matches(_GEO), lambda site, _: geo_blocked(site)),
    (_message_matches(_RATE_LIMITED), lambda site, trouble: rate_limited(site, trouble.retry_after)),
    (_message_matches(_UNAVAILABLE), lambda site, _: private_or_removed(site)),
    (_message_matches(_LOGIN), lambda site, _: _cookies_required(site)),
)  # fmt: skip
"""First match wins; what none matches, yt-dlp either knows (nothing to be had) or did not understand (outdated)."""


def diagnose(trouble: ExtractFailure, site: str, library: str) -> MurmurationError:
    """The error for what yt-dlp ran into.

    Args:
        trouble: in its words.
        site: the link's host, for the sentence.
        library: yt-dlp's version.
    """
    for applies, error in RULES:
        if applies(trouble):
            return error(site, trouble)
    if trouble.expected:
        return UnsupportedLink(f"There is no recording to be had at this link of {site}.")
    return _outdated(site, library)


def _live(site: str) -> LiveStream:
    return LiveStream(f"This is a live stream of {site}: send the link again once it has ended.")


def _unsupported(site: str) -> UnsupportedLink:
    return UnsupportedLink(
        f"Nothing here knows how to find a recording at this link of {site}: "
        "if it is the address of a file, send it as file_url."
    )


def _seconds(value: str, now: datetime) -> float | None:
    """``Retry-After`` (RFC 9110, §10.2.3): seconds, or a date."""
    if value.strip().isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds())
