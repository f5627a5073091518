"""The choice of adapters for ports. Replicas call these functions at start; nothing runs at import."""

from __future__ import annotations

from functools import partial
from importlib import resources
from pathlib import Path

from deployments.api.response.task_record import encode_record
from deployments.telemetry.trace_export import Tracing
from deployments.telemetry.traced_store import TracedTaskStore
from pipeline.asr.engine import Engine
from pipeline.crawl.crawler import LocalCrawler
from pipeline.crawl.extractor_processes import ExtractorProcesses
from pipeline.domain.decoding.engine_name import InstalledEngine
from pipeline.domain.tasks.task import Status
from pipeline.errors import ConfigurationError, DatabaseUnavailable, TaskNotFound
from pipeline.media.media_store import FsspecMediaStore
from pipeline.media.sandbox.sandbox import Sandbox, SandboxLimits
from pipeline.media.sandbox.sandboxed_decoder import SandboxedDecoder
from pipeline.media.sandboxed_extractor import SandboxedExtractor
from pipeline.ports import Clock, CrawlRequest, Metrics, Splitter, TaskRecordEncoder, TaskStore
from pipeline.settings import Settings
from pipeline.store.sql_task_store import SqlTaskStore
from pipeline.store.upload_store import SqlUploadStore
from pipeline.system_clock import SynchronizedClock, SystemClock

NO_ACCESS_LOG = {"enable_access_log": False}
"""Serve's logging for deployments that only other deployments call: a line for each call would hide other messages."""


def settings_file(config: str) -> Path:
    """Return the settings file that ``args.config`` of the Serve config names: in the package ``configs``, or by path.

    Raises:
        ConfigurationError: the package has no such file; the message lists those it has.
    """
    path = Path(config)
    if path.is_absolute():
        return path
    with resources.as_file(resources.files("configs")) as folder:
        known = {file.stem: file for file in folder.glob("*.yaml") if not file.stem.startswith("serve")}
    if config not in known:
        raise ConfigurationError(
            f"There is no settings file {config!r}: use an absolute path or one of {sorted(known)}."
        )
    return known[config]


def engine(settings: Settings, device: str) -> Engine:
    """Return the engine that the settings name, with its model loaded."""
    if settings.asr.engine is InstalledEngine.WAITING:
        from pipeline.asr.simulated_engine import SimulatedEngine  # only for trials of a cluster

        return SimulatedEngine.of_model(settings.asr.model)
    from pipeline.asr.engine_loading import load_engine  # only the process that decodes imports it

    return load_engine(settings.asr, device=device)


def task_store(
    settings: Settings, clock: Clock | None = None, traces: Tracing | None = None, metrics: Metrics | None = None
) -> SqlTaskStore:
    """Return the task store that the settings name. If ``traces`` are enabled, it records each step of a task there.

    Its times are those of ``clock``; the default clock follows the database's server.
    """
    make = partial(TracedTaskStore, tracing=traces) if traces and traces.enabled else SqlTaskStore
    return make(
        settings.database_url,
        clock or SynchronizedClock(),
        busy_timeout_s=settings.database.busy_timeout_s,
        idempotency_ttl_s=settings.database.idempotency_ttl_s,
        ageing_s=settings.dispatch.ageing_s,
        max_losses=settings.dispatch.max_losses,
        metrics=metrics,
        durability=settings.database.durability,
    )


def upload_store(store: SqlTaskStore) -> SqlUploadStore:
    """Return the store of resumable uploads, which is in the task store's database."""
    return SqlUploadStore(store.database, SystemClock(), store.report.note)


def media_store(settings: Settings) -> FsspecMediaStore:
    """Return the media store that the settings name."""
    return FsspecMediaStore(settings.media_url)


def sandbox(settings: Settings, niceness: int = 0) -> Sandbox:
    """Return a sandbox for opening recordings; it starts in the background."""
    media = settings.media
    limits = SandboxLimits(media.decode_cpu_s, media.decode_cpu_s_per_mib, media.decode_memory_bytes)
    sandbox = Sandbox(limits, niceness)
    sandbox.start()
    return sandbox


def splitter(settings: Settings, decoders: Sandbox) -> Splitter:
    """Return a splitter in this process, whose decoders run in processes of their own."""
    # Only the process that splits imports them: the others would take longer to restart after a crash.
    from pipeline.asr.silero_vad import SileroVad
    from pipeline.media.streaming_splitter import StreamingSplitter

    return StreamingSplitter(
        media_store(settings),
        SileroVad,
        settings.vad,
        settings.split,
        lambda file, sound: SandboxedDecoder(decoders, file, settings.media.max_duration_s, sound),
    )


def crawler(settings: Settings, store: TaskStore, processes: ExtractorProcesses) -> LocalCrawler:
    """Return a crawler in this process, which looks up in the store if its tasks are still in progress."""

    async def is_held(request: CrawlRequest) -> bool:
        try:
            task = await store.get(request.task_id)
        except TaskNotFound:
            return False
        except DatabaseUnavailable:
            return True  # the Dispatcher can't write either; it decides by the lease
        return task.status is Status.PROCESSING and task.fence == request.fence

    return LocalCrawler(media_store(settings), processes, settings, is_held, SystemClock())


def record_encoder() -> TaskRecordEncoder:
    """Return the encoder of callbacks, whose body is the record that the HTTP interface shows."""
    return encode_record


def extractor(settings: Settings, decoders: Sandbox) -> SandboxedExtractor:
    """Return an extractor that converts the sound of recordings in processes of their own."""
    return SandboxedExtractor(decoders, settings.media)
