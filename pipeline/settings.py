"""Settings: typed, documented, from a YAML file under ``configs`` and overridable by ``MURMURATION_…`` variables.

Three homes, never two: how many replicas there are belongs to ``serve_config.yaml``; how they behave belongs here;
what may change without a restart (``BatchSettings``) travels in ``user_config``. Secrets come from the environment
only. A variable's name is the field's path, joined by two underscores: ``MURMURATION_ASR__MODEL=small``.
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
    """Who may read what the service stores."""

    OWNER = "owner"
    GROUP = "group"


class Section(BaseModel):
    """A group of settings; unknown names are refused, so that a typo can't pass for a setting."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DatabaseSettings(Section):
    """Where tasks are kept."""

    url: SecretStr | None = None
    """SQLAlchemy URL: `sqlite+aiosqlite:////folder/tasks.db` or `mysql+asyncmy://user:password@host/name`.
    Empty: an SQLite file in `data_dir`. A URL with a password belongs in the environment."""
    busy_timeout_s: float = Field(default=15.0, gt=0)
    """How long a statement waits for a lock before it fails."""
    idempotency_ttl_s: float = Field(default=86_400.0, gt=0)
    """How long an `Idempotency-Key` is remembered."""
    durability: Durability = Durability.FULL
    """What a power cut may cost. `full`: nothing that a client was promised; every such commit waits for the disk.
    `normal`: on SQLite the last commits before the cut. A MySQL server decides by its own settings: with `full` the log
    warns where they can lose commits."""


class MediaSettings(Section):
    """Where recordings are kept, and which are taken."""

    url: str | None = None
    """fsspec URL of the store: `file:///shared/folder`, `s3://bucket/folder`. Empty: a folder in `data_dir`."""
    max_upload_bytes: int = Field(default=2048 * MEBIBYTE, gt=0)
    """Largest upload or download."""
    max_duration_s: float = Field(default=36_000.0, gt=0)
    """Longest recording, in seconds."""
    decode_cpu_s: float = Field(default=120.0, gt=0)
    """Processor seconds that decoding a recording may take, whatever its size; it runs in a process of its own."""
    decode_cpu_s_per_mib: float = Field(default=20.0, ge=0)
    """As many more for each MiB of the recording. An hour of AAC takes 4 s (measured on one core of a server)."""
    decode_memory_bytes: int = Field(default=512 * MEBIBYTE, ge=64 * MEBIBYTE)
    """Memory that decoding may take beyond what the codecs need to be loaded."""
    max_extractions: int = Field(default=4, ge=1)
    """`extract_audio` requests that one Ingress replica works on at the same time: they take turns at half of its
    cores. A client leaves half of the places to others."""
    max_waiting_extractions: int = Field(default=16, ge=0)
    """As many more wait for their turn; beyond, they are refused with 503, and so is a client that has half of them."""
    keep_source: bool = False
    """Keep the uploaded file and the prepared audio after the task has finished."""
    retention_s: float | None = Field(default=2_592_000.0, gt=0)
    """Recordings of failed and cancelled tasks, kept for a retry, go after this long; with `keep_source` those of
    completed tasks too. Empty: they stay as long as their task."""
    orphan_age_s: float = Field(default=600.0, ge=30)
    """Media that belongs to no task and has not changed for this long is removed. An upload under way is never that
    old, however slow its client is."""


class VadSettings(Section):
    """Silero VAD, in the terms of faster-whisper."""

    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Speech probability from which a frame counts as speech."""
    min_speech_duration_ms: int = Field(default=0, ge=0)
    """Shorter speech is thrown away."""
    min_silence_duration_ms: int = Field(default=500, ge=0)
    """Silence shorter than this does not end a speech span."""
    speech_pad_ms: int = Field(default=400, ge=0)
    """Added on both sides of a speech span. With less, the beginning of a first word may be cut off."""


class SplitSettings(Section):
    """How recordings are cut."""

    max_chunk_s: float = Field(default=15.0, ge=1, le=30)
    """Longest chunk. Whisper hears at most 30 s; shorter chunks waste less and batch better."""
    part_s: float = Field(default=300.0, ge=30)
    """Length of one part of prepared audio. The first parts are shorter, so that decoding starts early."""
    concurrency: int | None = Field(default=None, ge=1)
    """Recordings that one Splitter works on at the same moment; the others it has wait for their turn, which comes for
    every half minute of audio. Empty: one for each two cores."""


class AsrSettings(Section):
    """The model."""

    engine: Literal["faster_whisper", "waiting"] = "faster_whisper"
    """Which implementation decodes. `waiting` only takes its time: for trials of a cluster without GPUs."""
    model: str | None = None
    """Name (`base`, a Hugging Face id) or folder. Empty: `base` on a CPU, `large-v3-turbo` on a GPU."""
    compute_type: str | None = None
    """CTranslate2 compute type. Empty: `int8` on a CPU, `float16` on a GPU."""
    cpu_threads: int | None = Field(default=None, ge=1)
    """Threads of one CPU replica. Empty: the node's cores."""
    window: Literal["auto", "short", "full"] = "auto"
    """`short` encodes only as much as the longest chunk of a batch needs, `full` always 30 s.
    `auto`: short for the models it was checked with."""
    stall_s: float = Field(default=600.0, gt=0)
    """A replica whose batch takes longer than this hangs, and is replaced."""
    download: bool = True
    """Whether a model that is not on this machine may be fetched from the Hugging Face hub."""


class DispatchSettings(Section):
    """The queue."""

    lease_duration_s: float = Field(default=30.0, gt=1)
    """How long a task belongs to a Dispatcher that does not renew its lease."""
    heartbeat_s: float = Field(default=5.0, gt=0)
    """How often leases are renewed."""
    poll_s: float = Field(default=3.0, gt=0)
    """How often the table is asked for work nobody announced."""
    max_active_tasks: int = Field(default=64, ge=1)
    """Tasks of one priority that run at the same time in one Dispatcher, beside those that are being fetched and up to
    as many that wait to be split. Where few clients have all of them, as many again may run of those that have less
    than their share."""
    max_concurrent_crawls: int = Field(default=64, ge=1)
    """Recordings that are fetched at the same time; of one host at most `crawl.max_per_host`. A client leaves half of
    the places to others. No more than the Crawlers of `serve_config.yaml` take: `min_replicas` times
    `max_ongoing_requests`."""
    max_concurrent_splits: int = Field(default=16, ge=1)
    """Recordings that are decoded and cut at the same time: they take turns at the cores, see `split.concurrency`, and
    hold some 25 MB each. A client leaves half of the places to others, and less urgent tasks some to more urgent ones.
    No more than the Splitters of `serve_config.yaml` take: `min_replicas` times `max_ongoing_requests`."""
    max_attempts: int = Field(default=3, ge=1)
    """Processes a task may take down, or attempts of it that may fail, in a row without progress in between."""
    max_losses: int = Field(default=10, ge=1)
    """Times in a row, without progress in between, that a task's Dispatcher may be lost before it is a dead letter.
    Every task a Dispatcher holds is lost with it, so this says little against any one of them."""
    retry_base_s: float = Field(default=2.0, gt=0)
    """Upper bound of the first pause before another attempt; it doubles from there."""
    unit_deadline_s: float = Field(default=60.0, gt=0)
    """A unit that yields nothing for this long, on top of three times its audio, is lost. Dear options lengthen it."""
    ageing_s: float = Field(default=600.0, gt=0)
    """A waiting task is lifted by one priority each time this much time passes; of a client's chunks that wait, one
    unit is."""
    housekeeping_s: float = Field(default=60.0, gt=0)
    """How often expired tasks and media that belongs to no task are looked for."""
    max_queued_tasks: int = Field(default=10_000, ge=1)
    """Above this many waiting tasks, new ones are refused with 503."""
    max_queued_audio_s: float | None = Field(default=None, gt=0)
    """Above this much audio not yet decoded, waiting and running, new tasks are refused with 503. Empty: no limit.
    Recordings that are not split yet count by their size."""
    retention_s: float | None = Field(default=None, gt=0)
    """Finished tasks are deleted after this long, with their results and media. Empty: never."""


class CallbackSettings(Section):
    """Callbacks to clients."""

    timeout_s: float = Field(default=10.0, gt=0)
    """A receiver that takes longer is tried again later."""
    delays_s: tuple[float, ...] = (30.0, 120.0, 600.0, 3600.0)
    """Pauses between attempts; after the last one the callback is given up."""
    concurrency: int = Field(default=16, ge=1)
    """Callbacks under way at the same time, at most four to one host. A client leaves half of them to others."""
    retention_s: float | None = Field(default=2_592_000.0, gt=0)
    """Callbacks that were delivered or given up are forgotten after this long. Empty: with their task."""
    secret: SecretStr | None = None
    """Standard Webhooks secret (`whsec_…`). Like every secret it belongs in the environment, here as
    `MURMURATION_CALLBACK__SECRET`, or in a settings file that nobody else may read."""


class LlmPrice(Section):
    """What a model costs, in any currency."""

    input_per_million: float = Field(ge=0)
    """For a million tokens sent to it."""
    output_per_million: float = Field(ge=0)
    """For a million tokens it writes."""


class LlmSettings(Section):
    """The language model that writes summaries: OpenAI's, or that of any server with the same interface."""

    base_url: str | None = None
    """Address of an OpenAI-compatible server (vLLM, Ollama, llama.cpp …): `http://llm.internal:8000/v1`.
    Empty: OpenAI. It is the operator's, so the outbound guard does not look at it."""
    api_key: SecretStr | None = None
    """Its key, a secret: `MURMURATION_LLM__API_KEY`. A server of your own may need none."""
    model: str | None = None
    """The model, unless a request names one. Empty: `gpt-4o-mini` at OpenAI; a server of your own needs one."""
    allowed_models: tuple[str, ...] = ()
    """Models that a request may name on the operator's key. Empty: any."""
    context_tokens: int | None = Field(default=None, ge=2048)
    """What the model takes in at once, its answer included. Longer transcripts are cut and summarised in steps.
    Empty: 128,000 at OpenAI, 8,192 elsewhere."""
    max_output_tokens: int = Field(default=2000, ge=128)
    """Longest answer, at most a quarter of the context. A model that reasons before it answers needs more."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Empty: the server's default; some models take no other."""
    structured_output: Literal["json_schema", "json_object", "prompt"] = "json_schema"
    """How the model is held to a form: by its schema, or for servers that know less, as any JSON, or by words alone."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Longest silence of the server within one call."""
    deadline_s: float = Field(default=900.0, gt=0)
    """Longest time for one summary, all its calls together."""
    max_retries: int = Field(default=2, ge=0, le=10)
    """Retries of one call by the client itself: after 408, 409, 429, 5xx and lost connections."""
    concurrency: int = Field(default=4, ge=1)
    """Calls that one long transcript may have under way."""
    max_active_summaries: int = Field(default=8, ge=1)
    """Summaries that one Dispatcher has in hand; the others wait in the database. Urgent ones go first, then the client
    with the fewest in hand; one that has any leaves half of the places to others."""
    max_waited_summaries: int = Field(default=16, ge=1)
    """Summaries that one Ingress replica has written while their clients wait; further requests wait for their turn. A
    client leaves half of the places to others."""
    max_attempts: int = Field(default=5, ge=1)
    """Attempts at a task's summary, before the task is completed without one."""
    retry_base_s: float = Field(default=10.0, gt=0)
    """Upper bound of the first pause before another attempt; it doubles from there."""
    prices: dict[str, LlmPrice] = {}
    """By model, for the cost of each summary: `{"gpt-4o-mini": {"input_per_million": 0.15, …}}`."""

    @property
    def context(self) -> int:
        """The context in force, in tokens."""
        return self.context_tokens or (8_192 if self.base_url else 128_000)

    @model_validator(mode="after")
    def _answers_fit(self) -> Self:
        if 4 * self.max_output_tokens > self.context:
            raise ValueError(f"max_output_tokens must be at most a quarter of the context, which is {self.context}")
        return self


class NetworkSettings(Section):
    """Requests that the service makes on behalf of its clients."""

    allow_private_hosts: tuple[str, ...] = ()
    """Host names, addresses or networks (`10.0.0.0/8`) that may be reached although they are not public."""
    proxy: str | None = None
    """Outbound HTTP proxy."""
    proxy_resolves: bool = False
    """Whether the proxy looks names up: for networks whose own name service does not know the outside. The proxy must
    then refuse names of private addresses itself."""
    ca_file: Path | None = None
    """PEM file of the authorities that TLS trusts instead of the usual ones: for a proxy that inspects TLS."""


class ConfinementSettings(Section):
    """How the processes that open recordings and read pages are confined (`docs/media.md`, What holds where)."""

    required: ConfinementLevel = ConfinementLevel.NONE
    """What must hold for a replica to start: `full`, `partial` (something does) or `none`. Each replica tries at its
    start what is forbidden; what holds is in its log and in `GET /api/health/ready`."""


class PlatformSettings(Section):
    """How one site is asked."""

    cookies: SecretStr | None = None
    """Content of a cookie file in Netscape's format, of a session that is logged in: a secret."""
    cookies_file: Path | None = None
    """The same as a file, on every node that runs a Crawler."""
    proxy: SecretStr | None = None
    """Outbound HTTP proxy for this site, such as one in its country. Empty: `network.proxy`."""
    user_agent: str | None = None
    """`User-Agent` for this site. Empty: the extractor library's own."""


class CrawlSettings(Section):
    """How recordings are fetched from links and URLs."""

    enabled: bool = True
    """Whether the Crawler is part of the application; without it only uploads are taken."""
    deadline_s: float = Field(default=3600.0, gt=0)
    """Longest time one recording may take to be fetched."""
    min_bytes_per_s: int = Field(default=1024, ge=0)
    """A recording that comes more slowly than this, over `min_rate_window_s`, is given up and tried again later.
    0: any rate will do."""
    min_rate_window_s: float = Field(default=30.0, gt=0)
    """Over how long the rate of a download is taken; until then it may take its time."""
    max_per_host: int = Field(default=16, ge=1)
    """Recordings that one Dispatcher has fetched from one host at the same time; those of other hosts go first."""
    extract_timeout_s: float = Field(default=120.0, gt=0)
    """Longest time to find out where a link's recording is."""
    max_page_bytes: int = Field(default=64 * MEBIBYTE, gt=0)
    """Most that is read of a site's pages, as they are sent, before there is a recording to download."""
    max_process_bytes: int = Field(default=256 * MEBIBYTE, ge=64 * MEBIBYTE)
    """Most memory that the process which reads one site's pages may take beyond what is loaded, and so what a page may
    unfold to. Its largest file, a fragment of a recording, is as large. No limit of memory with a `js_runtime`."""
    max_processes: int = Field(default=16, ge=1)
    """Such processes at the same time in one Crawler; further links wait. Urgent ones go first, one host has half of
    the places, and a client leaves half to others. Together they take at most `max_processes` times
    `max_process_bytes` of memory, and twice as much disk."""
    max_breaks: int = Field(default=5, ge=0)
    """How often in a row a download that broke is taken up again without a byte in between."""
    rate_limit_delays_s: tuple[float, ...] = (60.0, 300.0, 1800.0)
    """Pauses before a site that found us too frequent is asked again; after the last one the task fails."""
    js_runtime: Path | None = None
    """Absolute path of a JavaScript runtime, which YouTube's extractor needs for most formats. Of those that yt-dlp
    takes, `deno` and `qjs` give a page's script no network; `node` and `bun` may let it around the guard."""
    platforms: dict[str, PlatformSettings] = {}
    """By site: `tiktok`, `douyin`, or the host of a link without `www.`, such as `vimeo.com`."""


class ConnectionSettings(Section):
    """What is taken of a request before anything of it is looked at: bounds on Serve's HTTP servers."""

    max_head_bytes: int = Field(default=64 * 1024, ge=4096, le=1024 * 1024)
    """Request line and headers of a request together; more is answered 431."""
    max_url_bytes: int = Field(default=44 * 1024, ge=1024)
    """The URL of a request; a longer one is answered 414. HAProxy bounds it by `max_head_bytes` alone. The default has
    room for a prompt of 4,000 Chinese characters, escaped."""
    max_headers: int = Field(default=100, ge=16)
    """Headers of a request; more are answered 431. HAProxy takes 101, whatever is said here."""
    head_timeout_s: float = Field(default=10.0, gt=0)
    """How long a new connection may take to send its first request's headers, and each later request its own."""
    max_connections: int = Field(default=4096, ge=16)
    """Open connections of one HTTP proxy. Beyond them, the one that has waited longest for a request is closed for
    a new one. No more than the process may have open files. HAProxy, which closes none for another, takes four times
    as many."""
    max_pipelined: int = Field(default=16, ge=1)
    """Requests that one connection may send ahead of their answers."""
    required: bool = True
    """Not ready where a proxy that a network reaches can't be bounded. `false`: something in front bounds requests."""


class HttpSettings(Section):
    """The HTTP surface."""

    public_url: str | None = None
    """The address clients reach the service at, for links in answers. Empty: links are relative."""
    cors_origins: tuple[str, ...] = ()
    """Web pages that may call from a browser, by origin (`https://app.example.com`); `*`: all. Empty: none."""
    upload_idle_timeout_s: float = Field(default=30.0, gt=0)
    """A body of which nothing arrives for this long is given up with 408."""
    upload_min_bytes_per_s: int = Field(default=1024, ge=0)
    """A body that comes more slowly than this on average, after `upload_idle_timeout_s`, is given up with 408.
    0: any rate will do."""
    resumable_ttl_s: float = Field(default=86_400.0, gt=0)
    """A resumable upload to which nothing is added for this long is thrown away."""
    max_json_bytes: int = Field(default=64 * 1024, ge=1024)
    """Largest body of JSON; `callback/test`, which takes whole records, has 1 MiB as forms have."""
    max_concurrent_requests: int | None = Field(default=None, ge=1)
    """Requests that one Ingress replica has under way; above, new ones are refused with 503. Health and documentation
    don't count. Empty: nine tenths of the Ingress's `max_ongoing_requests` in the Serve config, and never more: what
    Serve itself holds back waits, health checks among it."""
    max_lasting_requests: int | None = Field(default=None, ge=1)
    """Likewise those that may last: uploads, event streams, `/v1/audio`, `wait_s`, `extract_audio`, summaries. The rest
    is a reserve for short ones. Empty: seven tenths of `max_ongoing_requests`."""
    max_concurrent_requests_per_client: int | None = Field(default=None, ge=1)
    """Requests of one client that one Ingress replica has under way; above, new ones are refused with 429. A client is
    a key, and without keys an address (of IPv6, its /64); the loopback address is nobody's. Empty: a fifth of
    `max_ongoing_requests`."""
    max_page_bytes: int = Field(default=8 * MEBIBYTE, ge=64 * 1024)
    """A page of `tasks/query` ends with the first task that makes it larger than this, and says where to go on."""
    max_unread_bytes_per_answer: int = Field(default=512 * 1024, ge=128 * 1024)
    """What is sent ahead of a client that reads slowly, where the server says how much it has sent (see
    `docs/operations.md`, Limits of a request)."""
    max_unread_bytes: int = Field(default=512 * MEBIBYTE, ge=MEBIBYTE)
    """Where the server does not say: what is on the way to all clients of one Ingress replica together, in answers that
    are not read to their end. A client has half of it, and an answer that is larger is the only one of its client's."""
    answer_idle_timeout_s: float = Field(default=60.0, gt=0)
    """An answer of which nothing is read for this long is given up, with its connection."""
    answer_min_bytes_per_s: int = Field(default=16 * 1024, ge=1)
    """An answer that is read more slowly than this on average, after `answer_idle_timeout_s` of waiting, likewise."""
    max_results_in_hand: int = Field(default=4, ge=1)
    """Transcripts that one Ingress replica reads and writes out at the same time; others wait, each client in turn."""
    max_replays_in_hand: int = Field(default=16, ge=1)
    """Finished transcripts that are held for event streams at the same time; likewise."""


_RATE_EXAMPLE = "such as `10/second` or `10/second; 1000/hour`"


def _checked_rate(rate: str | None) -> str | None:
    if rate is not None:
        try:
            parse_rates(rate)
        except ValueError as error:
            raise ValueError(f"{rate!r} is not a rate, {_RATE_EXAMPLE}") from error
    return rate


Rate = Annotated[str | None, AfterValidator(_checked_rate)]


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class KeySettings(Section):
    """One key: who has it, what it opens, and how much."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Its holder. Tasks are marked with this name: a new key under the same name sees the old one's tasks."""
    sha256: Annotated[tuple[Sha256, ...], BeforeValidator(_listed), Field(min_length=1)]
    """SHA-256 of the key, as `python -m deployments.keys new` prints it. The key itself is kept nowhere.
    While the holder goes from one key to the next, a list of both: each opens the same, and limits count for both."""
    scopes: frozenset[Scope] = Field(default=frozenset({Scope.READ, Scope.WRITE}), min_length=1)
    """`read`, `write`, `admin` (both, and everybody's tasks)."""
    rate: Rate = None
    """Requests it may make, in the words of the library `limits`: `10/second`, `10/second; 1000/hour`.
    Empty: `auth.rate`."""
    max_queued_tasks: int | None = Field(default=None, ge=1)
    """How many of its tasks may wait at the same time. Empty: any number."""
    max_audio_minutes_per_day: float | None = Field(default=None, gt=0)
    """Minutes of audio that are taken from it in 24 hours. Empty: any number."""

    @property
    def client(self) -> Client:
        """Its holder, as the rest of the service knows it."""
        minutes = self.max_audio_minutes_per_day
        return Client(self.name, self.scopes, self.max_queued_tasks, None if minutes is None else minutes * 60)


class AuthSettings(Section):
    """Who may call. Without keys, everybody who reaches the port."""

    keys: tuple[KeySettings, ...] = ()
    """The keys. Their hashes are no secrets: a key has 256 random bits."""
    rate: Rate = None
    """The rate of keys that have none of their own. Empty: any."""
    rate_storage: SecretStr = SecretStr("async+memory://")
    """Where requests are counted, as a URL of the library `limits`. In memory, each Ingress replica counts alone, so
    that n replicas let up to n times as many through; `async+redis://host:6379` counts once and needs the package
    `limits[async-redis]`. A URL with a password belongs in the environment."""

    @property
    def audio_limits(self) -> dict[str, float]:
        """Seconds of audio in 24 hours, by the name of a client that has such a limit."""
        clients = [key.client for key in self.keys]
        return {client.name: client.max_audio_s for client in clients if client.max_audio_s is not None}

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [key.name for key in self.keys]
        if len(set(names)) < len(names):
            raise ValueError("two keys have the same name; a holder of two has a list of two under `sha256`")
        hashes = [sha256 for key in self.keys for sha256 in key.sha256]
        if len(set(hashes)) < len(hashes):
            raise ValueError("the same sha256 is there twice")
        return self


class LoggingSettings(Section):
    """Logs."""

    format: Literal["text", "json"] = "text"
    """One line of text, or one JSON object, per event."""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level that is written."""
    file: Path | None = None
    """A file that all replicas of a node write to as well, besides standard error. Absolute; its folder is made.
    Empty: none."""
    file_max_bytes: int = Field(default=64 * MEBIBYTE, ge=4096)
    """A log file is put aside with the line that makes it larger than this."""
    file_backups: int = Field(default=5, ge=1, le=1000)
    """How many files put aside are kept, as `<file>.1` (the newest), `<file>.2` …"""

    @field_validator("file")
    @classmethod
    def _absolute(cls, file: Path | None) -> Path | None:
        if file is not None and not file.is_absolute():
            raise ValueError("must be an absolute path: a replica's working directory is not yours")
        return file


class TracingSettings(Section):
    """OpenTelemetry traces of tasks."""

    endpoint: str | None = None
    """Where spans are sent, as OTLP over HTTP: `http://collector:4318/v1/traces`. Empty: no traces.
    Needs the extra `otel`."""
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of the tasks that are traced."""


class BatchSettings(Section):
    """What a WhisperReplica takes from ``user_config``; every value can change without a restart."""

    max_batch_size: int = Field(default=8, ge=1, le=256)
    """Chunks decoded together at most."""
    max_batch_s: float = Field(default=4.0, gt=0)
    """Predicted seconds one batch may take: what an urgent chunk waits for, since a batch can't be interrupted.
    Twice as long while nothing urgent has come for five minutes."""
    batch_wait_s: float = Field(default=0.02, ge=0, le=5)
    """How long an idle replica waits for company for a lone chunk that is not urgent."""
    quality_gate: bool = True
    """Whether chunks that fail their thresholds are decoded again."""


class Settings(BaseSettings):
    """Everything that shapes the service's behaviour. Resolved once, in ``deployments.app.build``."""

    model_config = SettingsConfigDict(
        env_prefix="MURMURATION_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    data_dir: Path = Field(default_factory=lambda: platformdirs.user_data_path("murmuration"))
    """Folder for the database and the media, unless their own settings say otherwise. Must be absolute."""
    file_access: FileAccess = FileAccess.OWNER
    """Who may read the database, the media, uploads and the log: the service's user alone, or its group too, where
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
        """The SQLAlchemy URL in force."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.data_dir / 'tasks.db'}"

    @property
    def media_url(self) -> str:
        """The fsspec URL in force."""
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
        """The environment goes before the file."""
        return env_settings, init_settings


def load_settings(file: Path | None = None, **overrides: Any) -> Settings:
    """Reads settings from a YAML file and the environment.

    Args:
        file: the YAML file; ``None`` for the defaults.
        overrides: top-level values that go before the file's.

    Raises:
        ConfigurationError: a name or value that can't be, in a sentence that names it.
    """
    try:
        settings = Settings(**(_content(file) | overrides))
    except ValidationError as error:
        raise ConfigurationError(_sentence(error)) from error
    except SettingsError as error:
        raise ConfigurationError(f"A MURMURATION_… variable does not hold the JSON it should: {error}.") from error
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
        raise ConfigurationError("The settings file must hold names and values, such as `asr:` and below it `model:`.")
    return content or {}


def _sentence(error: ValidationError) -> str:
    problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return f"These settings can't be used: {problems}."
