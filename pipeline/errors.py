"""Every error this project raises, in one tree.

::

    MurmurationError
    ├── RequestError                 the caller's to mend
    │   ├── SourceMissing            neither a file nor a URL, or an empty file
    │   ├── SourceConflict           a file and a URL together, or two files
    │   ├── InvalidValue             a field has a value it can't have (names the field)
    │   ├── UnknownOption            an option that does not exist (names the nearest one)
    │   ├── EngineUnavailable        an engine or model that is not installed here
    │   ├── UploadInterrupted        the client went away in mid-upload
    │   ├── UploadStalled            the body comes too slowly to wait for
    │   ├── UploadTooLarge           more bytes than the limit
    │   ├── AddressTooLong           a path or query string of too many bytes
    │   ├── HeadersTooLarge          too many headers, or too much in them
    │   ├── UploadNotFound           no such resumable upload
    │   ├── UploadStateConflict      its offset, or its being (in)complete, rules out what was asked for
    │   ├── ChecksumMismatch         bytes that are not those the client meant
    │   ├── ProtocolVersionUnsupported  a version of tus that is not spoken here
    │   ├── NotAuthenticated         no key, or one nobody knows
    │   ├── ScopeMissing             the key does not open this
    │   ├── UnsupportedMediaType     a content type that is not taken
    │   ├── UnsupportedContentEncoding  a body that is packed in a way that is not taken
    │   ├── TaskNotFound             no such task
    │   ├── ModelNotFound            no such model among those that can be named
    │   ├── TaskNotFinished          its transcript is not there yet
    │   ├── TaskStateConflict        the task is past what was asked for
    │   ├── IdempotencyConflict      the same key with another body
    │   ├── CrawlRecordNotFound      nothing is kept about the task's link
    │   ├── UnsupportedLink          a link that can't lead to one recording
    │   └── UrlNotAllowed            an address the outbound guard refuses
    ├── MediaError                   the recording itself
    │   ├── MediaUndecodable
    │   ├── NoAudioStream
    │   ├── NoSuchTrack              not the audio track that was asked for (names those there are)
    │   ├── MediaTooLong
    │   ├── NothingSaid              no speech where speech is needed
    │   ├── DecodingTooCostly        decoding takes more time or memory than it may
    │   └── OutputTooLarge           what is made of it has more bytes than the limit
    ├── DecoderCrashed               the process that decoded the recording died
    ├── SourceError                  a server we fetch from failed us
    │   ├── SourceUnreachable
    │   ├── SourceTimeout
    │   │   └── SourceTooSlow        it sends, but so slowly that nobody waits for it
    │   ├── SourceTooLarge
    │   ├── RateLimited              it wants to be asked less often
    │   └── LinkError                it won't give us this one, however often it is asked
    │       ├── CookiesRequired      it wants somebody who is logged in
    │       ├── PrivateOrRemoved
    │       ├── GeoBlocked
    │       ├── LiveStream
    │       └── ExtractorOutdated    its pages have changed
    ├── LlmError                     the server of the language model failed us
    │   ├── LlmUnreachable           no connection, or a failure of its own
    │   ├── LlmTimeout
    │   ├── LlmKeyRefused            it does not accept the API key
    │   ├── LlmRefused               it does not take the request (a model it lacks, a parameter)
    │   ├── LlmContextExceeded       more text than its model takes at once
    │   └── LlmAnswerUnusable        an answer that is no answer, or not in the form asked for
    ├── Unavailable                  try again later
    │   ├── QueueFull
    │   ├── ExtractionsFull
    │   ├── ServiceBusy              as many requests under way as this process takes
    │   ├── ServiceStarting
    │   ├── DatabaseUnavailable
    │   │   └── CommitUnanswered     it went away in mid-commit: perhaps it happened
    │   ├── StorageFull
    │   ├── StorageUnavailable       the media store does not answer
    │   ├── LlmNotConfigured         no language model (names the setting)
    │   ├── LlmRateLimited           its server asks for patience
    │   └── LimitReached             the caller's own share is used up
    │       ├── TooManyRequests      more than its rate
    │       └── QuotaExceeded        too many queued tasks, or too much audio
    ├── LeaseLost                    another owner has the task now
    ├── RecordUnreadable             a row of the database is damaged (names the column)
    ├── TaskCancelled                the task was cancelled while it ran
    ├── ReplicaLost                  a process died or fell silent with work in hand
    ├── DecodingFailed               the model failed on this audio (and only on it)
    ├── PreparedAudioLost            what was prepared of a recording is missing or cut short
    ├── AttemptsExhausted            the task took down its worker too often
    ├── ModelUnavailable             a model that can't be had (says what can)
    └── ConfigurationError           settings that can't work

Errors cross process boundaries, so each takes one positional ``message`` (a sentence its reader can act on) and
survives pickling. ``code`` is the stable name clients may switch on; HTTP statuses live at the HTTP edge, not here.
"""

from __future__ import annotations

from typing import ClassVar


class MurmurationError(Exception):
    """Root of the tree. ``code`` is a stable snake_case name, ``message`` a sentence without paths or secrets."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class RequestError(MurmurationError):
    """The caller asked for something that can't be done; asking again the same way won't help."""

    code = "bad_request"


class SourceMissing(RequestError):
    """Neither a file nor a URL was sent, or the file is empty."""

    code = "source_missing"


class SourceConflict(RequestError):
    """More than one source was sent."""

    code = "source_conflict"


class InvalidValue(RequestError):
    """A field has a value it can't have.

    Args:
        message: what is wrong, and what would be right.
        field: the name of the field, as the caller wrote it.
        problems: where several fields are wrong, each as its name and a sentence.
    """

    code = "invalid_value"

    def __init__(self, message: str, field: str = "", problems: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.field = field
        self.problems = problems or (((field, message),) if field else ())

    def __reduce__(self) -> tuple[type[InvalidValue], tuple[str, str, tuple[tuple[str, str], ...]]]:
        return type(self), (self.message, self.field, self.problems)


class UnknownOption(InvalidValue):
    """An option of that name does not exist."""

    code = "unknown_option"


class EngineUnavailable(InvalidValue):
    """An engine or model that is not installed here."""

    code = "engine_unavailable"


class UploadInterrupted(RequestError):
    """The body ended before its last part did."""

    code = "upload_interrupted"


class UploadStalled(RequestError):
    """The body stopped coming, or comes too slowly to wait for."""

    code = "upload_stalled"


class UploadTooLarge(RequestError):
    """More bytes than the limit allows; the message names both counts."""

    code = "upload_too_large"


class AddressTooLong(RequestError):
    """A path or a query string of more bytes than are read."""

    code = "address_too_long"


class HeadersTooLarge(RequestError):
    """More headers, or more in them, than are read."""

    code = "headers_too_large"


class UploadNotFound(RequestError):
    """There is no resumable upload of that id: it expired, was ended, or is somebody else's."""

    code = "upload_not_found"


class UploadStateConflict(RequestError):
    """The upload is at another offset, not complete yet, or complete already."""

    code = "upload_state_conflict"


class ChecksumMismatch(RequestError):
    """The bytes that arrived don't have the checksum that came with them; they were thrown away."""

    code = "checksum_mismatch"


class ProtocolVersionUnsupported(RequestError):
    """A version of the tus protocol that is not spoken here."""

    code = "protocol_version_unsupported"


class NotAuthenticated(RequestError):
    """There is no key with the request, or nobody knows it."""

    code = "not_authenticated"


class ScopeMissing(RequestError):
    """The key is known, but does not open this."""

    code = "scope_missing"


class UnsupportedMediaType(RequestError):
    """A content type this route does not take."""

    code = "unsupported_media_type"


class UnsupportedContentEncoding(RequestError):
    """A body that is packed in a way that is not taken."""

    code = "unsupported_content_encoding"


class TaskNotFound(RequestError):
    """There is no task of that id, or it was deleted."""

    code = "task_not_found"


class ModelNotFound(RequestError):
    """No model of that name can be asked for."""

    code = "model_not_found"


class TaskNotFinished(RequestError):
    """The transcript was asked for before it exists."""

    code = "task_not_finished"


class TaskStateConflict(RequestError):
    """The task's state rules out what was asked for."""

    code = "task_state_conflict"


class IdempotencyConflict(RequestError):
    """An idempotency key came back with another body."""

    code = "idempotency_conflict"


class CrawlRecordNotFound(RequestError):
    """Nothing is kept about the link of this task, or there is none."""

    code = "crawl_record_not_found"


class UnsupportedLink(InvalidValue):
    """A link of another site than the route takes, that no extractor reads, or that leads to several recordings."""

    code = "unsupported_link"


class UrlNotAllowed(InvalidValue):
    """An address the outbound guard does not connect to."""

    code = "url_not_allowed"


class MediaError(MurmurationError):
    """The recording can't be transcribed, and never will be."""

    code = "media_error"


class MediaUndecodable(MediaError):
    """No decoder makes sense of these bytes."""

    code = "media_undecodable"


class NoAudioStream(MediaError):
    """The file is a sound container or video without sound."""

    code = "no_audio_stream"


class NoSuchTrack(MediaError):
    """The recording has no audio track of the index or language that was asked for."""

    code = "no_such_track"


class MediaTooLong(MediaError):
    """Longer than the configured limit."""

    code = "media_too_long"


class NothingSaid(MediaError):
    """The recording holds no speech, and this can't be done without."""

    code = "no_speech"


class DecodingTooCostly(MediaError):
    """Decoding takes more processor time or memory than a recording of its size may."""

    code = "decoding_too_costly"


class OutputTooLarge(MediaError):
    """What is made of the recording has more bytes than the limit."""

    code = "output_too_large"


class DecoderCrashed(MurmurationError):
    """The process that decoded the recording died; it may have been the recording, or not."""

    code = "decoder_crashed"


class SourceError(MurmurationError):
    """The server the media comes from failed us."""

    code = "source_error"


class SourceUnreachable(SourceError):
    """No connection, or an answer that is not the media."""

    code = "source_unreachable"


class SourceTimeout(SourceError):
    """The source took longer than the limit."""

    code = "source_timeout"


class SourceTooSlow(SourceTimeout):
    """The source sends more slowly than the limit."""

    code = "source_too_slow"


class SourceTooLarge(SourceError):
    """The source sends more bytes than the limit."""

    code = "too_large"


class RateLimited(SourceError):
    """The source was asked too often.

    Args:
        message: who was.
        retry_after_s: when it wants to be asked again, in seconds, if it says so.
    """

    code = "rate_limited"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[RateLimited], tuple[str, float | None]]:
        return type(self), (self.message, self.retry_after_s)


class LinkError(SourceError):
    """What the link leads to can't be had, and asking again won't help."""

    code = "link_error"


class CookiesRequired(LinkError):
    """The site shows this only to somebody who is logged in."""

    code = "cookies_required"


class PrivateOrRemoved(LinkError):
    """It is private, deleted, or never was."""

    code = "private_or_removed"


class GeoBlocked(LinkError):
    """The site does not show this in the country, or to the address, of this server."""

    code = "geo_blocked"


class LiveStream(LinkError):
    """It has not ended, or not even begun."""

    code = "live_stream"


class ExtractorOutdated(LinkError):
    """The site's pages are no longer what the extractor library knows."""

    code = "extractor_outdated"


class LlmError(MurmurationError):
    """The server of the language model failed us. Its own words are never passed on: they may repeat a key."""

    code = "llm_error"


class LlmUnreachable(LlmError):
    """No connection to the server, or it failed."""

    code = "llm_unreachable"


class LlmTimeout(LlmError):
    """The language model took longer than the limit."""

    code = "llm_timeout"


class LlmKeyRefused(LlmError):
    """The server does not accept the API key, or the key may not do this."""

    code = "llm_key_refused"


class LlmRefused(LlmError):
    """The server does not take the request; asking again the same way won't help."""

    code = "llm_refused"


class LlmContextExceeded(LlmError):
    """More text than the model takes at once."""

    code = "llm_context_exceeded"


class LlmAnswerUnusable(LlmError):
    """The answer is empty, cut off, or not in the form that was asked for."""

    code = "llm_answer_unusable"


class Unavailable(MurmurationError):
    """The service can't do it now; the same request may succeed later.

    Args:
        message: what is missing.
        retry_after_s: when to ask again, in seconds.
    """

    code = "unavailable"

    def __init__(self, message: str, retry_after_s: int = 5) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[Unavailable], tuple[str, int]]:
        return type(self), (self.message, self.retry_after_s)


class QueueFull(Unavailable):
    """More work waits than the limits allow."""

    code = "queue_full"


class ExtractionsFull(Unavailable):
    """As many recordings are being extracted, or wait for it, as the limits allow."""

    code = "extractions_full"


class ServiceBusy(Unavailable):
    """As many requests are under way, or answers wait to be read, as this process takes."""

    code = "busy"


class ServiceStarting(Unavailable):
    """No replica has loaded its model yet."""

    code = "service_starting"


class DatabaseUnavailable(Unavailable):
    """The task database does not answer."""

    code = "database_unavailable"


class CommitUnanswered(DatabaseUnavailable):
    """The database went away in the middle of a commit; nobody knows whether it happened."""

    code = "commit_unanswered"


class StorageFull(Unavailable):
    """The media store has no room left."""

    code = "storage_full"


class StorageUnavailable(Unavailable):
    """The media store does not answer, or refuses to be written or read."""

    code = "storage_unavailable"


class LlmNotConfigured(Unavailable):
    """There is no language model here; the message names the setting that is missing."""

    code = "llm_not_configured"


class LlmRateLimited(Unavailable):
    """The server of the language model asks for patience."""

    code = "llm_rate_limited"


class LimitReached(Unavailable):
    """The caller has used up a share that is set for its key; others are served."""

    code = "limit_reached"


class TooManyRequests(LimitReached):
    """More requests than the key's rate allows."""

    code = "too_many_requests"


class QuotaExceeded(LimitReached):
    """Too many of the client's tasks wait, or too much audio was taken from it today."""

    code = "quota_exceeded"


class LeaseLost(MurmurationError):
    """The task's lease passed to another owner; nothing more may be written under the old fence."""

    code = "lease_lost"


class RecordUnreadable(MurmurationError):
    """A row of the database is damaged, or of a newer version; the message names its column and nothing of its content.

    Args:
        message: which column.
        newer: whether a newer version of this software may be able to read it.
    """

    code = "record_unreadable"

    def __init__(self, message: str, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer

    def __reduce__(self) -> tuple[type[RecordUnreadable], tuple[str, bool]]:
        return type(self), (self.message, self.newer)


class TaskCancelled(MurmurationError):
    """The task was cancelled or deleted while it ran."""

    code = "cancelled"


class ReplicaLost(MurmurationError):
    """A replica died, or stayed silent past its deadline, with work in hand."""

    code = "replica_lost"


class DecodingFailed(MurmurationError):
    """The model failed on this chunk of audio; its neighbours are unharmed."""

    code = "decoding_failed"


class PreparedAudioLost(MurmurationError):
    """Prepared audio is missing or cut short; it is made again from the recording."""

    code = "prepared_audio_lost"


class AttemptsExhausted(MurmurationError):
    """Every allowed attempt ended with a lost process; the task is a dead letter until someone retries it."""

    code = "attempts_exhausted"


class ModelUnavailable(MurmurationError):
    """A model that is neither on this machine nor downloadable; the message lists what is available."""

    code = "model_unavailable"


class ConfigurationError(MurmurationError):
    """Settings that can't work together, or a value no run could accept."""

    code = "configuration_error"
