from datetime import UTC, datetime

import pytest

from pipeline.crawl.diagnosis import diagnose, rate_limited_error
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

SAID = {
    # what extractors of yt-dlp 2026.10 say, by what it means
    "This video is only available for registered users. Use --cookies": CookiesRequired,
    "Sign in to confirm your age. This video may be inappropriate for some users": CookiesRequired,
    "Sign in to confirm you’re not a bot": CookiesRequired,
    "Fresh cookies (not necessarily logged in) are needed": CookiesRequired,
    "This post may not be comfortable for some audiences. Log in for access": CookiesRequired,
    "Join this channel to get access to members-only content like this video": CookiesRequired,
    "Private video. Sign in if you've been granted access to this video": PrivateOrRemoved,
    "You do not have permission to view this post. Log into an account that has access": PrivateOrRemoved,
    "This video has been removed by the uploader": PrivateOrRemoved,
    "Video unavailable": PrivateOrRemoved,
    "Video not available, status code 10204": PrivateOrRemoved,
    "This video is not available from your location due to geo restriction": GeoBlocked,
    "The uploader has not made this video available in your country": GeoBlocked,
    "Your IP address is blocked from accessing this post": GeoBlocked,
    "This live event will begin in 2 hours.": LiveStream,
    "Premieres in 40 minutes": LiveStream,
    "The channel is not currently live": LiveStream,
    "This video is DRM protected": UnsupportedLink,
    "Too many requests, slow down": RateLimited,
    "ERROR: No suitable extractor found for URL https://a.example": UnsupportedLink,
    "[Errno 27] File too large": SourceTooLarge,
    "unable to write data: [Errno 28] No space left on device": StorageFull,
    "Whatever it is that this says": UnsupportedLink,
}


@pytest.mark.parametrize("message", SAID)
def test_what_extractors_say_in_words(message: str) -> None:
    assert type(diagnose(ExtractFailure("ExtractorError", message, expected=True), "a.example", "1")) is SAID[message]


KINDS: dict[str, type[MurmurationError]] = {
    "UnsupportedError": UnsupportedLink,
    "GeoRestrictedError": GeoBlocked,
    "UserNotLive": LiveStream,
    "Live": LiveStream,
    "Playlist": UnsupportedLink,
    "NoFormats": UnsupportedLink,
    "TransportError": SourceUnreachable,
    "ProxyError": SourceUnreachable,
    "CertificateVerifyError": SourceUnreachable,
    "MemoryError": SourceTooLarge,
    "CookieLoadError": CookiesRequired,
    "RegexNotFoundError": ExtractorOutdated,
    "KeyError": ExtractorOutdated,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_exceptions_mean(kind: str) -> None:
    assert type(diagnose(ExtractFailure(kind, "message"), "a.example", "1")) is KINDS[kind]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, CookiesRequired),
        (403, CookiesRequired),
        (404, PrivateOrRemoved),
        (410, PrivateOrRemoved),
        (429, RateLimited),
        (451, GeoBlocked),
        (500, SourceUnreachable),
        (503, SourceUnreachable),
    ],
)
def test_what_statuses_mean(status: int, error: type[MurmurationError]) -> None:
    assert type(diagnose(ExtractFailure("HTTPError", "HTTP Error", status, expected=True), "a.example", "1")) is error


def test_every_sentence_names_the_site_and_what_to_do_and_nothing_of_the_library() -> None:
    told = {diagnose(ExtractFailure(kind, "/secret/path"), "a.example", "2026.10.26").message for kind in KINDS}
    told |= {diagnose(ExtractFailure("ExtractorError", text, expected=True), "a.example", "1").message for text in SAID}
    assert all(sentence.endswith(".") and "/secret" not in sentence for sentence in told)
    assert any("pip install -U yt-dlp" in sentence and "2026.10.26" in sentence for sentence in told)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("120", 120.0),
        ("", None),
        ("soon", None),
        ("Tue, 24 Nov 2026 06:01:00 GMT", 60.0),
        ("Tue, 24 Nov 2020 06:00:00 GMT", 0.0),
    ],
)
def test_when_to_come_again(retry_after: str, seconds: float | None) -> None:
    now = datetime(2026, 11, 24, 6, tzinfo=UTC)
    assert rate_limited_error("a.example", retry_after, now).retry_after_s == seconds
