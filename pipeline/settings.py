"""Typed settings, from a YAML file under ``configs`` and from ``MURMURATION_…`` variables, which override the file.

Each setting has exactly one place. The number of replicas is in ``serve_config.yaml``, their behaviour here, and what
may change without a restart (``BatchSettings``) in ``user_config``. Secrets come from the environment only. The name of
a variable is the path of the field, joined by two underscores: ``MURMURATION_ASR__MODEL=small``.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
import yaml
from limits import parse_many as parse_rates
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from pipeline.domain.confinement_level import ConfinementLevel
from pipeline.domain.durability import Durability
from pipeline.domain.tasks.client import Client, Scope
from pipeline.errors import ConfigurationError

MEBIBYTE = 1024 * 1024


class FileAccess(StrEnum):
    """The users that may read the service's files."""

    OWNER = "owner"
    GROUP = "group"


class Section(BaseModel):
    """A group of settings. Unknown names are refused, so that a typing error can't pass for a setting."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DatabaseSettings(Section):
    """The database of tasks."""

    url: SecretStr | None = None
    """SQLAlchemy URL: `sqlite+aiosqlite:////folder/tasks.db` or `mysql+asyncmy://user:password@host/name`.
    Empty: an SQLite file in `data_dir`. A URL with a password belongs in the environment."""
    busy_timeout_s: float = Field(default=15.0, gt=0)
    """Seconds that a statement waits for a lock before it fails."""
    idempotency_ttl_s: float = Field(default=86_400.0, gt=0)
    """Seconds after which an `Idempotency-Key` expires."""
    durability: Durability = Durability.FULL
    """Data that a power failure may lose. `full`: nothing that a client was promised; every such commit waits for the
    disk. `normal`: on SQLite the last commits before the failure. A MySQL server decides by its own settings: with
    `full` the log warns if they can lose commits."""


class MediaSettings(Section):
    """The media store, and the limits of recordings."""

    url: str | None = None
    """fsspec URL of the store: `file:///shared/folder`, `s3://bucket/folder`. Empty: a folder in `data_dir`."""
    max_upload_bytes: int = Field(default=2048 * MEBIBYTE, gt=0)
    """Largest upload or download."""
    max_duration_s: float = Field(default=36_000.0, gt=0)
    """Longest recording, in seconds."""
    decode_cpu_s: float = Field(default=120.0, gt=0)
    """Processor seconds for decoding any recording, whatever its size; decoding runs in a process of its own."""
    decode_cpu_s_per_mib: float = Field(default=20.0, ge=0)
    """Further processor seconds for each MiB of the recording. An hour of AAC takes 4 s (measured on one core of a
    server)."""
    decode_memory_bytes: int = Field(default=512 * MEBIBYTE, ge=64 * MEBIBYTE)
    """Memory for decoding a recording, beyond that of the loaded codecs."""
    max_extractions: int = Field(default=4, ge=1)
    """`extract_audio` requests in progress at the same time in one Ingress replica: they take turns at half of its
    cores. A client leaves half of the slots to others."""
    max_waiting_extractions: int = Field(default=16, ge=0)
    """Further `extract_audio` requests that wait for a slot. More are refused with 503, and so is a client that has
    half of them."""
    keep_source: bool = False
    """Keep the recording and the prepared audio after the task has completed."""
    retention_s: float | None = Field(default=2_592_000.0, gt=0)
    """Age at which the recordings of failed and cancelled tasks, kept for a retry, are deleted; with `keep_source`
    those of completed tasks too. Empty: they are kept as long as their task."""
    orphan_age_s: float = Field(default=600.0, ge=30)
    """Age, since the last change, at which media that belongs to no task is deleted. An upload in progress is never
    that old, however slow its client is."""


class VadSettings(Section):
    """Silero VAD, in the terms of faster-whisper."""

    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Speech probability from which a frame counts as speech."""
    min_speech_duration_ms: int = Field(default=0, ge=0)
    """Shorter speech is dropped."""
    min_silence_duration_ms: int = Field(default=500, ge=0)
    """Silence shorter than this does not end a speech span."""
    speech_pad_ms: int = Field(default=400, ge=0)
    """Padding on both sides of a speech span. With less, the beginning of a first word may be cut off."""


class SplitSettings(Section):
    """Splitting of recordings."""

    max_chunk_s: float = Field(default=15.0, ge=1, le=30)
    """Longest chunk. Whisper takes at most 30 s; shorter chunks waste less and batch better."""
    part_s: float = Field(default=300.0, ge=30)
    """Length of one part of prepared audio. The first parts are shorter, so that decoding starts early."""
    concurrency: int | None = Field(default=None, ge=1)
    """Recordings that one Splitter works on at the same moment. Its other recordings wait for a turn, which lasts for
    half a minute of audio. Empty: one recording for each two cores."""


class AsrSettings(Section):
    """The speech model."""

    engine: Literal["faster_whisper", "waiting"] = "faster_whisper"
    """The engine. `waiting` only simulates the time of decoding: for trials of a cluster without GPUs."""
    model: str | None = None
    """Name (`base`, a Hugging Face id) or folder. Empty: `base` on a CPU, `large-v3-turbo` on a GPU."""
    compute_type: str | None = None
    """CTranslate2 compute type. Empty: `int8` on a CPU, `float16` on a GPU."""
    cpu_threads: int | None = Field(default=None, ge=1)
    """Threads of one CPU replica. Empty: the node's cores."""
    window: Literal["auto", "short", "full"] = "auto"
    """`short` encodes only the length of a batch's longest chunk, `full` always 30 s. `auto`: `short` for the models
    that it was tested with."""
    stall_s: float = Field(default=600.0, gt=0)
    """Longest time of a batch; a replica that takes longer hangs, and is replaced."""
    download: bool = True
    """Download a model that is not on this machine from the Hugging Face hub."""


class DispatchSettings(Section):
    """The queue and the running tasks."""

    lease_duration_s: float = Field(default=30.0, gt=1)
    """Duration of a task's lease unless its Dispatcher renews it."""
    heartbeat_s: float = Field(default=5.0, gt=0)
    """Interval at which leases are renewed."""
    poll_s: float = Field(default=3.0, gt=0)
    """Interval at which the database is queried for work that was not announced."""
    max_active_tasks: int = Field(default=64, ge=1)
    """Tasks of one priority that run at the same time in one Dispatcher, beside those that are being fetched and up to
    as many that wait to be split. If few clients have all of them, as many again may run of clients that have less than
    their share."""
    max_concurrent_crawls: int = Field(default=64, ge=1)
    """Recordings that are fetched at the same time, of one host at most `crawl.max_per_host`. A client leaves half of
    the slots to others. At most the capacity of the Crawlers in `serve_config.yaml`: `min_replicas` times
    `max_ongoing_requests`."""
    max_concurrent_splits: int = Field(default=16, ge=1)
    """Recordings that are split at the same time: they take turns at the cores, see `split.concurrency`, and hold some
    25 MB each. A client leaves half of the slots to others, and less urgent tasks leave some to more urgent ones. At
    most the capacity of the Splitters in `serve_config.yaml`: `min_replicas` times `max_ongoing_requests`."""
    max_attempts: int = Field(default=3, ge=1)
    """Failed attempts of a task, or processes that die while they work on it, in a row without progress in between."""
    max_losses: int = Field(default=10, ge=1)
    """Times in a row, without progress in between, that a task's Dispatcher may be lost before the task is a dead
    letter. A lost Dispatcher loses all of its tasks, so a loss says little about any one of them."""
    retry_base_s: float = Field(default=2.0, gt=0)
    """Upper bound of the first pause before another attempt; it doubles with each attempt."""
    unit_deadline_s: float = Field(default=60.0, gt=0)
    """Silence, on top of three times its audio, after which a unit is lost. Costly options extend it."""
    ageing_s: float = Field(default=600.0, gt=0)
    """Waiting time that raises a task by one priority, each time that it passes; among a client's waiting chunks it
    raises one unit."""
    housekeeping_s: float = Field(default=60.0, gt=0)
    """Interval at which expired tasks, and media that belongs to no task, are deleted."""
    max_queued_tasks: int = Field(default=10_000, ge=1)
    """Waiting tasks at which new ones are refused with 503."""
    max_queued_audio_s: float | None = Field(default=None, gt=0)
    """Seconds of audio not yet decoded, of waiting and running tasks, at which new tasks are refused with 503. Empty:
    no limit. The audio of recordings that are not split yet is estimated from their size."""
    retention_s: float | None = Field(default=None, gt=0)
    """Age at which finished tasks are deleted, with their results and media. Empty: never."""


class CallbackSettings(Section):
    """Callbacks to clients."""

    timeout_s: float = Field(default=10.0, gt=0)
    """Longest time of a delivery; if the receiver takes longer, the callback is delivered again later."""
    delays_s: tuple[float, ...] = (30.0, 120.0, 600.0, 3600.0)
    """Pauses between deliveries; there is none after the last one has failed."""
    concurrency: int = Field(default=16, ge=1)
    """Deliveries in progress at the same time, at most four to one host. A client leaves half of them to others."""
    retention_s: float | None = Field(default=2_592_000.0, gt=0)
    """Age at which callbacks that were delivered or have failed are deleted. Empty: with their task."""
    secret: SecretStr | None = None
    """Standard Webhooks secret (`whsec_…`). Like every secret it belongs in the environment, here as
    `MURMURATION_CALLBACK__SECRET`, or in a settings file that nobody else may read."""


class LlmPrice(Section):
    """The price of a model, in any currency."""

    input_per_million: float = Field(ge=0)
    """Price of a million input tokens."""
    output_per_million: float = Field(ge=0)
    """Price of a million output tokens."""


class LlmSettings(Section):
    """The language model that writes summaries: OpenAI's, or that of any server with the same interface."""

    base_url: str | None = None
    """Address of an OpenAI-compatible server (vLLM, Ollama, llama.cpp …): `http://llm.internal:8000/v1`.
    Empty: OpenAI. The operator sets it, so the outbound guard does not check it."""
    api_key: SecretStr | None = None
    """API key of the server, a secret: `MURMURATION_LLM__API_KEY`. A server of your own may need none."""
    model: str | None = None
    """The model of requests that name none. Empty: `gpt-4o-mini` at OpenAI; a server of your own needs a name."""
    allowed_models: tuple[str, ...] = ()
    """Models that a request may name on the operator's key. Empty: any."""
    context_tokens: int | None = Field(default=None, ge=2048)
    """Context of the model, including its output. Longer transcripts are divided and summarized in steps.
    Empty: 128,000 at OpenAI, 8,192 elsewhere."""
    max_output_tokens: int = Field(default=2000, ge=128)
    """Longest output, at most a quarter of the context. A model that reasons before it answers needs more."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Temperature of the model. Empty: the server's default; some models accept no other."""
    structured_output: Literal["json_schema", "json_object", "prompt"] = "json_schema"
    """Method that makes the model write structured summaries: its server enforces a JSON schema, or any JSON, or only
    the prompt asks for the form."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Longest silence of the server within one call."""
    deadline_s: float = Field(default=900.0, gt=0)
    """Longest time for one summary, all its calls together."""
    max_retries: int = Field(default=2, ge=0, le=10)
    """Retries of one call by the client library: after 408, 409, 429, 5xx and lost connections."""
    concurrency: int = Field(default=4, ge=1)
    """Calls in progress at the same time for one long transcript."""
    max_active_summaries: int = Field(default=8, ge=1)
    """Summaries in progress in one Dispatcher; the others wait in the database. Urgent ones go first, then those of the
    client with the fewest in progress; a client that has any leaves half of the slots to others."""
    max_waited_summaries: int = Field(default=16, ge=1)
    """Summaries in progress in one Ingress replica for clients that wait for them; further requests wait for a slot. A
    client leaves half of the slots to others."""
    max_attempts: int = Field(default=5, ge=1)
    """Attempts at a task's summary, before the task is completed without one."""
    retry_base_s: float = Field(default=10.0, gt=0)
    """Upper bound of the first pause before another attempt; it doubles with each attempt."""
    prices: dict[str, LlmPrice] = {}
    """Prices by model, for the cost of each summary: `{"gpt-4o-mini": {"input_per_million": 0.15, …}}`."""

    @property
    def context(self) -> int:
        """The model's context in tokens: the configured one, else the default."""
        return self.context_tokens or (8_192 if self.base_url else 128_000)

    @model_validator(mode="after")
    def _output_fits_context(self) -> Self:
        if 4 * self.max_output_tokens > self.context:
            raise ValueError(f"max_output_tokens must be at most a quarter of the context, which is {self.context}")
        return self


class NetworkSettings(Section):
    """Requests that the service makes on behalf of its clients."""

    allow_private_hosts: tuple[str, ...] = ()
    """Host names, addresses or networks (`10.0.0.0/8`) that may be reached although they are not public."""
    proxy: str | None = None
    """The operator's proxy for outbound HTTP."""
    proxy_resolves: bool = False
    """Let the operator's proxy resolve names: for networks whose own name service does not resolve public names. The
    proxy must then refuse names of private addresses itself."""
    ca_file: Path | None = None
    """PEM file of the authorities that TLS trusts instead of the usual ones: for a proxy that inspects TLS."""


class ConfinementSettings(Section):
    """Confinement of the processes that open recordings and read pages (`docs/media.md`, What holds where)."""

    required: ConfinementLevel = ConfinementLevel.NONE
    """Level that a replica needs to start: `full`, `partial` (some parts hold) or `none`. Each replica tries the
    forbidden acts at its start; the result is in its log and in `GET /api/health/ready`."""


class PlatformSettings(Section):
    """Access to one site."""

    cookies: SecretStr | None = None
    """Content of a cookie file in Netscape's format, of a session that is logged in: a secret."""
    cookies_file: Path | None = None
    """Path of such a cookie file, on every node that runs a Crawler."""
    proxy: SecretStr | None = None
    """Outbound HTTP proxy for this site, such as one in its country. Empty: `network.proxy`."""
    user_agent: str | None = None
    """`User-Agent` for this site. Empty: the extractor library's own."""


class CrawlSettings(Section):
    """Fetching of recordings from links and URLs."""

    enabled: bool = True
    """Include the Crawler in the application; without it only uploads are accepted."""
    deadline_s: float = Field(default=3600.0, gt=0)
    """Longest time for fetching one recording."""
    min_bytes_per_s: int = Field(default=1024, ge=0)
    """Lowest rate of a download over `min_rate_window_s`; a slower one is ended and tried again later.
    0: any rate is accepted."""
    min_rate_window_s: float = Field(default=30.0, gt=0)
    """Time over which the rate of a download is measured; no download is too slow before that."""
    max_per_host: int = Field(default=16, ge=1)
    """Recordings that are fetched from one host at the same time by one Dispatcher; those of other hosts go first."""
    extract_timeout_s: float = Field(default=120.0, gt=0)
    """Longest time for finding the recording of a link."""
    max_page_bytes: int = Field(default=64 * MEBIBYTE, gt=0)
    """Most bytes read of a site's pages, as they are sent, before the download of a recording begins."""
    max_process_bytes: int = Field(default=256 * MEBIBYTE, ge=64 * MEBIBYTE)
    """Most memory of the process that reads one site's pages, beyond that of its libraries. It bounds the decompressed
    size of a page. The largest file of the process, a fragment of a recording, has the same limit. With a `js_runtime`
    memory has no limit."""
    max_processes: int = Field(default=16, ge=1)
    """Such processes at the same time in one Crawler; further links wait. Urgent ones go first, one host has at most
    half of the slots, and a client leaves half to others. Together the processes use at most `max_processes` times
    `max_process_bytes` of memory, and twice as much disk."""
    max_breaks: int = Field(default=5, ge=0)
    """Times in a row that a broken download is continued without receiving a byte in between."""
    rate_limit_delays_s: tuple[float, ...] = (60.0, 300.0, 1800.0)
    """Pauses before the next request to a site that limits our requests; after the last one the task fails."""
    js_runtime: Path | None = None
    """Absolute path of a JavaScript runtime, which YouTube's extractor needs for most formats. Of those that yt-dlp
    supports, `deno` and `qjs` give a page's script no network; `node` and `bun` may let it bypass the guard."""
    platforms: dict[str, PlatformSettings] = {}
    """Settings by site: `tiktok`, `douyin`, or the host of a link without `www.`, such as `vimeo.com`."""


class ConnectionSettings(Section):
    """Bounds of Serve's HTTP servers on connections and request heads, before the application sees a request."""

    max_head_bytes: int = Field(default=64 * 1024, ge=4096, le=1024 * 1024)
    """Most bytes of a request's line and headers together; more are answered with 431."""
    max_url_bytes: int = Field(default=44 * 1024, ge=1024)
    """Most bytes of a request's URL; more are answered with 414. HAProxy bounds it by `max_head_bytes` alone. The
    default has room for a prompt of 4,000 Chinese characters, escaped."""
    max_headers: int = Field(default=100, ge=16)
    """Most headers of a request; more are answered with 431. HAProxy accepts 101, whatever this setting says."""
    head_timeout_s: float = Field(default=10.0, gt=0)
    """Time for receiving the headers of a request: of the first one from the start of the connection."""
    max_connections: int = Field(default=4096, ge=16)
    """Open connections of one HTTP proxy. Beyond them, a new connection closes the one that has waited longest for a
    request. At most the number of files that the process may open. HAProxy closes none for another, and accepts four
    times as many."""
    max_pipelined: int = Field(default=16, ge=1)
    """Requests that one connection may send ahead of their answers."""
    required: bool = True
    """Report the service as not ready if a proxy that a network reaches can't be bounded. `false`: a server in front of
    the service bounds requests."""


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


_RATE_EXAMPLE = "such as `10/second` or `10/second; 1000/hour`"


def _checked_rate(rate: str | None) -> str | None:
    if rate is not None:
        try:
            parse_rates(rate)
        except ValueError as error:
            raise ValueError(f"{rate!r} is not a rate, {_RATE_EXAMPLE}") from error
    return rate


Rate = Annotated[str | None, AfterValidator(_checked_rate)]


def _split_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class KeySettings(Section):
    """One API key: its holder, scopes and limits."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Name of the holder. Tasks are stored with it: a new key of the same name sees the tasks of the old one."""
    sha256: Annotated[tuple[Sha256, ...], BeforeValidator(_split_list), Field(min_length=1)]
    """SHA-256 of the key, as `python -m deployments.keys new` prints it. The key itself is not stored. While the holder
    changes from one key to the next, a list of both: they have the same scopes, and share their limits."""
    scopes: frozenset[Scope] = Field(default=frozenset({Scope.READ, Scope.WRITE}), min_length=1)
    """`read`, `write`, `admin` (both, for the tasks of all clients)."""
    rate: Rate = None
    """Rate limit of its requests, in the syntax of the library `limits`: `10/second`, `10/second; 1000/hour`.
    Empty: `auth.rate`."""
    max_queued_tasks: int | None = Field(default=None, ge=1)
    """Most tasks of it that may wait at the same time. Empty: any number."""
    max_audio_minutes_per_day: float | None = Field(default=None, gt=0)
    """Most minutes of its audio that may be decoded in 24 hours. Empty: any number."""

    @property
    def client(self) -> Client:
        """The holder of the key."""
        minutes = self.max_audio_minutes_per_day
        return Client(self.name, self.scopes, self.max_queued_tasks, None if minutes is None else minutes * 60)


class AuthSettings(Section):
    """The API keys. Without keys, everybody who reaches the TCP port may use the service."""

    keys: tuple[KeySettings, ...] = ()
    """The keys. Their hashes are no secrets: a key has 256 random bits."""
    rate: Rate = None
    """Rate limit of keys without one of their own. Empty: any rate."""
    rate_storage: SecretStr = SecretStr("async+memory://")
    """Storage of the request counts, as a URL of the library `limits`. In memory, each Ingress replica counts alone, so
    n replicas accept up to n times as many requests; `async+redis://host:6379` counts once and needs the package
    `limits[async-redis]`. A URL with a password belongs in the environment."""

    @property
    def audio_limits(self) -> dict[str, float]:
        """Seconds of audio in 24 hours, by the name of each client with such a limit."""
        clients = [key.client for key in self.keys]
        return {client.name: client.max_audio_s for client in clients if client.max_audio_s is not None}

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [key.name for key in self.keys]
        if len(set(names)) < len(names):
            raise ValueError("two keys have the same name; give the holder of two keys a list of two under `sha256`")
        hashes = [sha256 for key in self.keys for sha256 in key.sha256]
        if len(set(hashes)) < len(hashes):
            raise ValueError("the same sha256 is there twice; give every key a hash of its own")
        return self


class LoggingSettings(Section):
    """The log."""

    format: Literal["text", "json"] = "text"
    """One line of text, or one JSON object, per event."""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level that is logged."""
    file: Path | None = None
    """Absolute path of a file that all replicas of a node write to, besides standard error. Its folder is created.
    Empty: none."""
    file_max_bytes: int = Field(default=64 * MEBIBYTE, ge=4096)
    """Size of the log file at which it is rotated: after the line that makes it larger."""
    file_backups: int = Field(default=5, ge=1, le=1000)
    """Number of rotated files that are kept, as `<file>.1` (the newest), `<file>.2` …"""

    @field_validator("file")
    @classmethod
    def _absolute(cls, file: Path | None) -> Path | None:
        if file is not None and not file.is_absolute():
            raise ValueError("must be an absolute path: a replica's working directory is not yours")
        return file


class TracingSettings(Section):
    """OpenTelemetry traces of tasks."""

    endpoint: str | None = None
    """URL that spans are sent to, as OTLP over HTTP: `http://collector:4318/v1/traces`. Empty: no traces.
    Needs the extra `otel`."""
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of the tasks that are traced."""


class BatchSettings(Section):
    """The part of a WhisperReplica's ``user_config`` that shapes batches; every value can change without a restart."""

    max_batch_size: int = Field(default=8, ge=1, le=256)
    """Most chunks decoded together."""
    max_batch_s: float = Field(default=4.0, gt=0)
    """Longest predicted time of a batch, for which an urgent chunk may have to wait, since a batch can't be
    interrupted. The limit doubles if nothing urgent has arrived for five minutes."""
    batch_wait_s: float = Field(default=0.02, ge=0, le=5)
    """Time that an idle replica waits for further chunks when it has a single chunk that is not urgent."""
    quality_gate: bool = True
    """Decode chunks again if they fail their thresholds."""


class Settings(BaseSettings):
    """All settings of the service's behaviour. They are loaded once, in ``deployments.app.build``."""

    model_config = SettingsConfigDict(
        env_prefix="MURMURATION_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    data_dir: Path = Field(default_factory=lambda: platformdirs.user_data_path("murmuration"))
    """Absolute path of the folder for the database and the media, unless their own settings say otherwise."""
    file_access: FileAccess = FileAccess.OWNER
    """Access to the database, the media, uploads and the log: for the service's user alone, or also for its group, if
    several users share a media folder. Folders get mode 0700 or 0770, files 0600 or 0660."""
    database: DatabaseSettings = DatabaseSettings()
    media: MediaSettings = MediaSettings()
    vad: VadSettings = VadSettings()
    split: SplitSettings = SplitSettings()
    asr: AsrSettings = AsrSettings()
    dispatch: DispatchSettings = DispatchSettings()
    callback: CallbackSettings = CallbackSettings()
    llm: LlmSettings = LlmSettings()
    network: NetworkSettings = NetworkSettings()
    crawl: CrawlSettings = CrawlSettings()
    confinement: ConfinementSettings = ConfinementSettings()
    http: HttpSettings = HttpSettings()
    connections: ConnectionSettings = ConnectionSettings()
    auth: AuthSettings = AuthSettings()
    logging: LoggingSettings = LoggingSettings()
    tracing: TracingSettings = TracingSettings()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL: the configured one, else that of a file in ``data_dir``."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.data_dir / 'tasks.db'}"

    @property
    def media_url(self) -> str:
        """The fsspec URL: the configured one, else that of a folder in ``data_dir``."""
        return self.media.url or (self.data_dir / "media").as_uri()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment before the file."""
        return env_settings, init_settings


def load_settings(file: Path | None = None, **overrides: Any) -> Settings:
    """Load settings from a YAML file and the environment.

    Args:
        file: the YAML file; ``None`` for the defaults.
        overrides: top-level values that take precedence over the file's.

    Raises:
        ConfigurationError: a name or value is invalid; the message names it.
    """
    try:
        settings = Settings(**(_content(file) | overrides))
    except ValidationError as error:
        raise ConfigurationError(_sentence(error)) from error
    except SettingsError as error:
        raise ConfigurationError(f"A MURMURATION_… variable does not hold valid JSON: {error}.") from error
    if not settings.data_dir.is_absolute():
        raise ConfigurationError("data_dir must be an absolute path: a replica's working directory is not yours.")
    return settings


def _content(file: Path | None) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text("utf-8")) if file else None
    except OSError as error:
        raise ConfigurationError(f"The settings file can't be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The settings file is not YAML: {error}.") from error
    if content is not None and not (isinstance(content, dict) and all(isinstance(name, str) for name in content)):
        raise ConfigurationError("The settings file must hold names and values, such as `asr:` with `model:` below it.")
    return content or {}


def _sentence(error: ValidationError) -> str:
    problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return f"These settings can't be used: {problems}."
