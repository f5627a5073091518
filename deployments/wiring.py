"""Which adapter stands behind which port. Called on the replica that uses it, never at import."""

from __future__ import annotations

from functools import partial
from importlib import resources
from pathlib import Path

from deployments.traced_store import TracedTaskStore
from deployments.tracing import Tracing
from pipeline.asr.engine import Engine
from pipeline.asr.loading import load_engine
from pipeline.asr.vad import SileroVad
from pipeline.clock import SystemClock
from pipeline.errors import ConfigurationError
from pipeline.media.split import StreamingSplitter
from pipeline.media.store import FsspecMediaStore
from pipeline.settings import Settings
from pipeline.store.store import SqlTaskStore

QUIET = {"enable_access_log": False}
"""Serve's logging of deployments that only other deployments call: a line a call would drown what matters."""


def settings_file(config: str) -> Path:
    """The file that the Serve config's ``args.config`` means: one of the package ``configs``, or an absolute path.

    Raises:
        ConfigurationError: there is no such file; the message lists those that are.
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
    """The engine the settings name, loaded."""
    if settings.asr.engine == "waiting":
        from pipeline.testing.waiting import WaitingEngine  # only for trials of a cluster; see its docstring

        return WaitingEngine(settings.asr.model)
    return load_engine(settings.asr, device=device)


def task_store(settings: Settings, traces: Tracing | None = None) -> SqlTaskStore:
    """The task store the settings name; one that tells ``traces`` of each step where there are any."""
    make = partial(TracedTaskStore, tracing=traces) if traces and traces.enabled else SqlTaskStore
    return make(
        settings.database_url,
        SystemClock(),
        busy_timeout_s=settings.database.busy_timeout_s,
        idempotency_ttl_s=settings.database.idempotency_ttl_s,
        ageing_s=settings.dispatch.ageing_s,
        max_attempts=settings.dispatch.max_attempts,
    )


def media_store(settings: Settings) -> FsspecMediaStore:
    """The media store the settings name."""
    return FsspecMediaStore(settings.media_url)


def splitter(settings: Settings) -> StreamingSplitter:
    """A splitter in this process."""
    return StreamingSplitter(
        media_store(settings), SileroVad, settings.vad, settings.split, settings.media.max_duration_s
    )
