"""Translates yt-dlp's failures to errors whose sentences tell a user what to do.

yt-dlp raises one class for most failures and distinguishes them only by their text. Its extractors share these texts
(``raise_login_required``, ``raise_geo_restricted`` …). The order of the rules matters: the text about a private video
also mentions a login, and the one about a removed video may also say "not available in your country".
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
"""Classes of yt-dlp's exceptions that concern the connection to the site, not the site itself."""

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
    return lambda failure: bool(pattern.search(failure.message))


def _kind_is(*kinds: str) -> Callable[[ExtractFailure], bool]:
    return lambda failure: failure.kind in kinds


def _status_is(*statuses: int) -> Callable[[ExtractFailure], bool]:
    return lambda failure: failure.status in statuses


def private_or_removed_error(site: str) -> PrivateOrRemoved:
    """Return the error for a link whose recording is private, deleted or never existed."""
    return PrivateOrRemoved(f"{site} reports that this is private, deleted or never existed: open the link to check.")


def geo_blocked_error(site: str) -> GeoBlocked:
    """Return the error for a site that does not serve the address of this server."""
    return GeoBlocked(
        f"{site} does not show this at the location of this server: "
        "the operator can set a proxy elsewhere under crawl.platforms.<site>.proxy."
    )


def rate_limited_error(site: str, retry_after: str, now: datetime | None = None) -> RateLimited:
    """Return the error for a site that received too many requests.

    Args:
        site: the link's host, for the sentence.
        retry_after: value of the ``Retry-After`` header, or an empty text.
        now: the time from which a date in ``retry_after`` counts; by default the current time.
    """
    return RateLimited(
        f"{site} received too many requests from this server: try again later.",
        _seconds(retry_after, now or datetime.now(UTC)),
    )


def _cookies_required_error(site: str) -> CookiesRequired:
    return CookiesRequired(
        f"{site} shows this only to users who are logged in or have proved that they are human: the operator can set "
        "the cookies of a session under crawl.platforms.<site>.cookies."
    )


def _outdated_error(site: str, library: str) -> ExtractorOutdated:
    return ExtractorOutdated(
        f"The pages of {site} have changed, and yt-dlp {library} can no longer read them: "
        "the operator can update it (pip install -U yt-dlp) and restart the service."
    )


RULES: tuple[Rule, ...] = (
    (
        _kind_is("Playlist"),
        lambda site, _: UnsupportedLink("The link leads to several recordings: send one link for each."),
    ),
    (_kind_is("Live", "UserNotLive"), lambda site, _: _live_error(site)),
    (_kind_is("NoFormats"), lambda site, _: UnsupportedLink(f"The page at this link of {site} has no audio.")),
    (_kind_is("UnsupportedError", "UnknownExtractor"), lambda site, _: _unsupported_error(site)),
    (_kind_is("GeoRestrictedError"), lambda site, _: geo_blocked_error(site)),
    (_status_is(429), lambda site, failure: rate_limited_error(site, failure.retry_after)),
    (_status_is(451), lambda site, _: geo_blocked_error(site)),
    (_status_is(404, 410), lambda site, _: private_or_removed_error(site)),
    (_status_is(401, 403), lambda site, _: _cookies_required_error(site)),
    (lambda failure: failure.status is not None, lambda site, failure: SourceUnreachable(
        f"{site} answered {failure.status}."
    )),
    (_kind_is(*NETWORK_KINDS), lambda site, _: SourceUnreachable(f"The connection to {site} failed or broke off.")),
    (_kind_is("MemoryError"), lambda site, _: SourceTooLarge(f"A page of {site} is too large to read.")),
    (_message_matches(_FILE_TOO_LARGE), lambda site, _: SourceTooLarge(
        f"{site} sends a part of the recording that is larger than allowed."
    )),
    (_message_matches(_NO_SPACE), lambda site, _: StorageFull("The server has no space left for temporary files.", 60)),
    (_kind_is("CookieLoadError"), lambda site, _: CookiesRequired(
        f"The cookies for {site} under crawl.platforms are not in the format of a Netscape cookie file."
    )),
    (_message_matches(re.compile(r"^(?:ERROR: )?No suitable extractor")), lambda site, _: _unsupported_error(site)),
    (_message_matches(_DRM), lambda site, _: UnsupportedLink(f"The recording at {site} is protected by DRM.")),
    (_message_matches(_LIVE), lambda site, _: _live_error(site)),
    (_message_matches(_GEO), lambda site, _: geo_blocked_error(site)),
    (_message_matches(_RATE_LIMITED), lambda site, failure: rate_limited_error(site, failure.retry_after)),
    (_message_matches(_UNAVAILABLE), lambda site, _: private_or_removed_error(site)),
    (_message_matches(_LOGIN), lambda site, _: _cookies_required_error(site)),
)  # fmt: skip
"""The first rule that matches decides. Without a match, yt-dlp either knows the failure (the link has no recording) or
does not understand the page (yt-dlp is outdated)."""


def diagnose(failure: ExtractFailure, site: str, library: str) -> MurmurationError:
    """Return the error for a failure of yt-dlp.

    Args:
        failure: the failure in yt-dlp's words.
        site: the link's host, for the sentence.
        library: yt-dlp's version.
    """
    for applies, error in RULES:
        if applies(failure):
            return error(site, failure)
    if failure.expected:
        return UnsupportedLink(f"There is no recording at this link of {site}.")
    return _outdated_error(site, library)


def _live_error(site: str) -> LiveStream:
    return LiveStream(f"This is a live stream of {site}: send the link again once it has ended.")


def _unsupported_error(site: str) -> UnsupportedLink:
    return UnsupportedLink(
        f"No extractor of the service can find a recording at this link of {site}: "
        "if it is the address of a file, send it as file_url."
    )


def _seconds(value: str, now: datetime) -> float | None:
    """Return the seconds in a ``Retry-After`` (RFC 9110, §10.2.3), a number or a date; ``None`` if it is neither."""
    if value.strip().isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds())
