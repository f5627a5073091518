"""All errors of this project, in one tree.

::

    MurmurationError
    ├── RequestError                 the request is wrong
    │   ├── SourceMissing            neither a file nor a URL, or an empty file
    │   ├── SourceConflict           a file and a URL together, or two files
    │   ├── InvalidValue             a field has an invalid value (names the field)
    │   ├── UnknownOption            an option that does not exist (names the nearest one)
    │   ├── EngineUnavailable        an engine or model that is not installed
    │   ├── UploadInterrupted        the client disconnected during the upload
    │   ├── UploadStalled            the body arrives too slowly
    │   ├── UploadTooLarge           more bytes than the limit
    │   ├── AddressTooLong           a path or query string with too many bytes
    │   ├── HeadersTooLarge          too many headers, or too many bytes in them
    │   ├── UploadNotFound           no such resumable upload
    │   ├── UploadStateConflict      the upload's offset or completeness rules out the request
    │   ├── ChecksumMismatch         the bytes do not have the checksum sent with them
    │   ├── ProtocolVersionUnsupported  an unsupported version of tus
    │   ├── NotAuthenticated         no key, or an unknown one
    │   ├── ScopeMissing             the key lacks the scope for this request
    │   ├── UnsupportedMediaType     an unsupported content type
    │   ├── UnsupportedContentEncoding  an unsupported compression of the body
    │   ├── TaskNotFound             no such task
    │   ├── ModelNotFound            no such model
    │   ├── TaskNotFinished          the task has no transcript yet
    │   ├── TaskStateConflict        the task's status rules out the request
    │   ├── IdempotencyConflict      the same idempotency key with another request
    │   ├── CrawlRecordNotFound      no crawl record is stored for the task
    │   ├── UnsupportedLink          a link that can't lead to one recording
    │   └── UrlNotAllowed            an address that the outbound guard refuses
    ├── MediaError                   the recording can't be used
    │   ├── MediaUndecodable
    │   ├── NoAudioStream
    │   ├── NoSuchTrack              the requested audio track does not exist (lists those that do)
    │   ├── MediaTooLong
    │   ├── NothingSaid              no speech, and the request needs some
    │   ├── DecodingTooCostly        decoding takes more time or memory than allowed
    │   └── OutputTooLarge           the result has more bytes than the limit
    ├── DecoderCrashed               the process that decoded the recording died
    ├── SourceError                  a server that we fetch from failed
    │   ├── SourceUnreachable
    │   ├── SourceTimeout
    │   │   └── SourceTooSlow        the server sends more slowly than the limit
    │   ├── SourceTooLarge
    │   ├── RateLimited              the server limits our requests
    │   └── LinkError                the link can't be fetched, however often it is tried
    │       ├── CookiesRequired      the site requires a login
    │       ├── PrivateOrRemoved
    │       ├── GeoBlocked
    │       ├── LiveStream
    │       └── ExtractorOutdated    the site's pages have changed
    ├── LlmError                     the server of the language model failed
    │   ├── LlmUnreachable           no connection, or a failure of the server
    │   ├── LlmTimeout
    │   ├── LlmKeyRefused            the server refuses the API key
    │   ├── LlmRefused               the server refuses the request (an unknown model, a parameter)
    │   ├── LlmContextExceeded       more text than the model's context
    │   └── LlmAnswerUnusable        an empty or incomplete response, or one in another form than requested
    ├── Unavailable                  try again later
    │   ├── QueueFull
    │   ├── ExtractionsFull
    │   ├── ServiceBusy              the process has as many requests in progress as it allows
    │   ├── ServiceStarting
    │   ├── DatabaseUnavailable
    │   │   └── CommitUnanswered     the connection broke during a commit, which may have happened
    │   ├── StorageFull
    │   ├── StorageUnavailable       the media store does not respond
    │   ├── LlmNotConfigured         no language model is configured (names the setting)
    │   ├── LlmRateLimited           the server of the language model limits our requests
    │   └── LimitReached             the caller has reached its own limit
    │       ├── TooManyRequests      more requests than its rate limit
    │       └── QuotaExceeded        too many queued tasks, or too much audio
    ├── LeaseLost                    another owner has the task's lease
    ├── RecordUnreadable             a row of the database is damaged (names the column)
    ├── TaskCancelled                the task was cancelled while it ran
    ├── ReplicaLost                  a replica died, or stopped responding, with work in progress
    ├── DecodingFailed               the model failed on this audio only
    ├── PreparedAudioLost            prepared audio is missing or incomplete
    ├── AttemptsExhausted            the task's process died too often
    ├── ModelUnavailable             the model can't be loaded (lists those that can)
    └── ConfigurationError           invalid settings

Errors cross process boundaries, so each takes one positional ``message`` (a sentence that its reader can act on) and
survives pickling. ``code`` is a stable name that clients may depend on. HTTP status codes are set at the HTTP edge.
"""

from __future__ import annotations

from typing import ClassVar


class MurmurationError(Exception):
    """The root of the tree. ``code`` is a stable snake_case name, ``message`` a sentence without paths or secrets."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class RequestError(MurmurationError):
    """A request that can't be fulfilled; the same request will fail again."""

    code = "bad_request"


class SourceMissing(RequestError):
    """A request without a file or URL, or with an empty file."""

    code = "source_missing"


class SourceConflict(RequestError):
    """A request with more than one source."""

    code = "source_conflict"


class InvalidValue(RequestError):
    """A field with an invalid value.

    Args:
        message: what is wrong, and what would be right.
        field: name of the field, as the caller wrote it.
        problems: name and sentence of each wrong field, if there are several.
    """

    code = "invalid_value"

    def __init__(self, message: str, field: str = "", problems: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.field = field
        self.problems = problems or (((field, message),) if field else ())

    def __reduce__(self) -> tuple[type[InvalidValue], tuple[str, str, tuple[tuple[str, str], ...]]]:
        return type(self), (self.message, self.field, self.problems)


class UnknownOption(InvalidValue):
    """An option that does not exist."""

    code = "unknown_option"


class EngineUnavailable(InvalidValue):
    """An engine or model that is not installed."""

    code = "engine_unavailable"


class UploadInterrupted(RequestError):
    """A body that ended before its last part did."""

    code = "upload_interrupted"


class UploadStalled(RequestError):
    """A body that stopped arriving, or arrives too slowly."""

    code = "upload_stalled"


class UploadTooLarge(RequestError):
    """An upload of more bytes than the limit; the message names both counts."""

    code = "upload_too_large"


class AddressTooLong(RequestError):
    """A path or a query string with more bytes than the limit."""

    code = "address_too_long"


class HeadersTooLarge(RequestError):
    """A request with more headers, or more bytes in them, than the limit."""

    code = "headers_too_large"


class UploadNotFound(RequestError):
    """A resumable upload that does not exist: it expired, was ended, or belongs to another client."""

    code = "upload_not_found"


class UploadStateConflict(RequestError):
    """An upload that is at another offset, not complete yet, or complete already."""

    code = "upload_state_conflict"


class ChecksumMismatch(RequestError):
    """Bytes without the checksum that was sent with them; they were discarded."""

    code = "checksum_mismatch"


class ProtocolVersionUnsupported(RequestError):
    """An unsupported version of the tus protocol."""

    code = "protocol_version_unsupported"


class NotAuthenticated(RequestError):
    """A request without a key, or with an unknown one."""

    code = "not_authenticated"


class ScopeMissing(RequestError):
    """A known key that lacks the scope for the request."""

    code = "scope_missing"


class UnsupportedMediaType(RequestError):
    """A content type that the route does not accept."""

    code = "unsupported_media_type"


class UnsupportedContentEncoding(RequestError):
    """A body in a compression that is not accepted."""

    code = "unsupported_content_encoding"


class TaskNotFound(RequestError):
    """A task that does not exist, or was deleted."""

    code = "task_not_found"


class ModelNotFound(RequestError):
    """A model name that no request may use."""

    code = "model_not_found"


class TaskNotFinished(RequestError):
    """A transcript that was requested before it exists."""

    code = "task_not_finished"


class TaskStateConflict(RequestError):
    """A task whose status rules out the request."""

    code = "task_state_conflict"


class IdempotencyConflict(RequestError):
    """An idempotency key that came with another request before."""

    code = "idempotency_conflict"


class CrawlRecordNotFound(RequestError):
    """A task without a crawl record."""

    code = "crawl_record_not_found"


class UnsupportedLink(InvalidValue):
    """A link of another site than the route's, one that no extractor reads, or one that leads to several recordings."""

    code = "unsupported_link"


class UrlNotAllowed(InvalidValue):
    """An address that the outbound guard refuses."""

    code = "url_not_allowed"


class MediaError(MurmurationError):
    """A recording that can't be transcribed, now or later."""

    code = "media_error"


class MediaUndecodable(MediaError):
    """A recording that no decoder can read."""

    code = "media_undecodable"


class NoAudioStream(MediaError):
    """A container or video without sound."""

    code = "no_audio_stream"


class NoSuchTrack(MediaError):
    """A recording without an audio track of the requested index or language."""

    code = "no_such_track"


class MediaTooLong(MediaError):
    """A recording that is longer than the configured limit."""

    code = "media_too_long"


class NothingSaid(MediaError):
    """A recording without speech, in a request that needs some."""

    code = "no_speech"


class DecodingTooCostly(MediaError):
    """A recording whose decoding takes more processor time or memory than its size allows."""

    code = "decoding_too_costly"


class OutputTooLarge(MediaError):
    """A result with more bytes than the limit."""

    code = "output_too_large"


class DecoderCrashed(MurmurationError):
    """The death of the process that decoded the recording; the recording may or may not be the cause."""

    code = "decoder_crashed"


class SourceError(MurmurationError):
    """A failure of the server that a recording is fetched from."""

    code = "source_error"


class SourceUnreachable(SourceError):
    """A failed connection, or a response that is not the recording."""

    code = "source_unreachable"


class SourceTimeout(SourceError):
    """A source that took longer than the limit."""

    code = "source_timeout"


class SourceTooSlow(SourceTimeout):
    """A source that sends more slowly than the limit."""

    code = "source_too_slow"


class SourceTooLarge(SourceError):
    """A source that sends more bytes than the limit."""

    code = "too_large"


class RateLimited(SourceError):
    """A source that limits how often it is requested.

    Args:
        message: a sentence that names the server.
        retry_after_s: seconds until the next request may be made, if the server says so.
    """

    code = "rate_limited"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[RateLimited], tuple[str, float | None]]:
        return type(self), (self.message, self.retry_after_s)


class LinkError(SourceError):
    """A link that can't be fetched; another try will not help."""

    code = "link_error"


class CookiesRequired(LinkError):
    """A page that the site shows only after a login."""

    code = "cookies_required"


class PrivateOrRemoved(LinkError):
    """A page that is private, was deleted, or never existed."""

    code = "private_or_removed"


class GeoBlocked(LinkError):
    """A page that the site does not show in this server's country, or to its address."""

    code = "geo_blocked"


class LiveStream(LinkError):
    """A live stream that has not ended, or not begun."""

    code = "live_stream"


class ExtractorOutdated(LinkError):
    """A site whose pages have changed beyond what the extractor library can read."""

    code = "extractor_outdated"


class LlmError(MurmurationError):
    """A failure of the language model's server. Its own text is never passed on: it may repeat a key."""

    code = "llm_error"


class LlmUnreachable(LlmError):
    """A failed connection to the server, or a failure of the server."""

    code = "llm_unreachable"


class LlmTimeout(LlmError):
    """A language model that took longer than the limit."""

    code = "llm_timeout"


class LlmKeyRefused(LlmError):
    """An API key that the server refuses, or that lacks the permission."""

    code = "llm_key_refused"


class LlmRefused(LlmError):
    """A request that the server refuses; the same request will be refused again."""

    code = "llm_refused"


class LlmContextExceeded(LlmError):
    """A request with more text than the model's context."""

    code = "llm_context_exceeded"


class LlmAnswerUnusable(LlmError):
    """A response that is empty, cut off, or not in the requested form."""

    code = "llm_answer_unusable"


class Unavailable(MurmurationError):
    """A request that can't be fulfilled now; the same request may succeed later.

    Args:
        message: what is missing.
        retry_after_s: seconds until the client should try again.
    """

    code = "unavailable"

    def __init__(self, message: str, retry_after_s: int = 5) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[Unavailable], tuple[str, int]]:
        return type(self), (self.message, self.retry_after_s)


class QueueFull(Unavailable):
    """A queue that holds as much work as the limits allow."""

    code = "queue_full"


class ExtractionsFull(Unavailable):
    """Extractions in progress and waiting that reach their limit."""

    code = "extractions_full"


class ServiceBusy(Unavailable):
    """A process with as many requests in progress, or unread responses, as it allows."""

    code = "busy"


class ServiceStarting(Unavailable):
    """A service in which no replica has loaded its model yet."""

    code = "service_starting"


class DatabaseUnavailable(Unavailable):
    """A task database that does not respond."""

    code = "database_unavailable"


class CommitUnanswered(DatabaseUnavailable):
    """A connection to the database that broke during a commit; it is unknown whether the commit happened."""

    code = "commit_unanswered"


class StorageFull(Unavailable):
    """A media store without free space."""

    code = "storage_full"


class StorageUnavailable(Unavailable):
    """A media store that does not respond, or refuses reading or writing."""

    code = "storage_unavailable"


class LlmNotConfigured(Unavailable):
    """A service without a language model; the message names the missing setting."""

    code = "llm_not_configured"


class LlmRateLimited(Unavailable):
    """A language model whose server limits our requests."""

    code = "llm_rate_limited"


class LimitReached(Unavailable):
    """A limit of the caller's own key; other clients are served."""

    code = "limit_reached"


class TooManyRequests(LimitReached):
    """More requests than the key's rate limit allows."""

    code = "too_many_requests"


class QuotaExceeded(LimitReached):
    """More queued tasks or more audio than the client's quota allows."""

    code = "quota_exceeded"


class LeaseLost(MurmurationError):
    """A lease that passed to another owner; nothing more may be written with the old fence."""

    code = "lease_lost"


class RecordUnreadable(MurmurationError):
    """A row of the database that is damaged or of a newer version; the message names its column and no content.

    Args:
        message: a sentence that names the column.
        newer: whether a newer version of this software may be able to read the row.
    """

    code = "record_unreadable"

    def __init__(self, message: str, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer

    def __reduce__(self) -> tuple[type[RecordUnreadable], tuple[str, bool]]:
        return type(self), (self.message, self.newer)


class TaskCancelled(MurmurationError):
    """A task that was cancelled or deleted while it ran."""

    code = "cancelled"


class ReplicaLost(MurmurationError):
    """A replica that died, or was silent beyond its deadline, with work in progress."""

    code = "replica_lost"


class DecodingFailed(MurmurationError):
    """A failure of the model on this chunk; other chunks are not affected."""

    code = "decoding_failed"


class PreparedAudioLost(MurmurationError):
    """Prepared audio that is missing or incomplete; it is made again from the recording."""

    code = "prepared_audio_lost"


class AttemptsExhausted(MurmurationError):
    """A task whose allowed attempts all ended with a lost process; it is a dead letter until a client retries it."""

    code = "attempts_exhausted"


class ModelUnavailable(MurmurationError):
    """A model that is neither on this machine nor downloadable; the message lists the available ones."""

    code = "model_unavailable"


class ConfigurationError(MurmurationError):
    """Settings that can't work together, or an invalid value."""

    code = "configuration_error"
