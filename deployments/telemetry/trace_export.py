"""OpenTelemetry traces: one a task, across all processes that work on it. Off unless ``tracing.endpoint`` is set.

Processes pass no trace context to each other. They compute the trace id from the task's media prefix, which every
process that works on the task has. So an attempt that another Dispatcher resumes a day later is still part of the same
trace. The root span is the task's creation; all others are its children.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer

from pipeline.errors import ConfigurationError
from pipeline.settings import Settings, TracingSettings

Attribute = str | int | float | bool


class Tracing:
    """A writer of tasks' spans. Without a provider every method does nothing.

    Args:
        provider: exports the spans; it samples by trace id, so every process decides alike.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer: Tracer | None = provider.get_tracer("murmuration") if provider else None

    @property
    def enabled(self) -> bool:
        """True if spans are exported."""
        return self._tracer is not None

    @contextmanager
    def span(self, name: str, media_prefix: str, **attributes: Attribute) -> Iterator[None]:
        """Record a span of the task around the block. An exception sets the span's status and propagates."""
        if self._tracer is None:
            yield
            return
        # The span is not made current: an asynchronous generator may end in another asyncio task's context.
        span = self._tracer.start_span(name, _parent(media_prefix), attributes=attributes)
        try:
            yield
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()

    def note(
        self,
        name: str,
        media_prefix: str,
        began: datetime,
        ended: datetime,
        *,
        failure: str | None = None,
        **attributes: Attribute,
    ) -> None:
        """Record a span of the task that has ended already; ``failure`` is the reason if it failed."""
        if self._tracer is None:
            return
        span = self._tracer.start_span(
            name, _parent(media_prefix), attributes=attributes, start_time=_nanoseconds(began)
        )
        if failure:
            span.set_status(Status(StatusCode.ERROR, failure))
        span.end(_nanoseconds(ended))

    def root(self, name: str, media_prefix: str, began: datetime, ended: datetime, **attributes: Attribute) -> None:
        """Record the root span of the task, the parent of all its others."""
        if self._tracer is None:
            return
        forced = _ROOT.set(task_ids(media_prefix))
        try:
            span = self._tracer.start_span(
                name,
                trace.set_span_in_context(trace.INVALID_SPAN),
                kind=SpanKind.PRODUCER,
                attributes=attributes,
                start_time=_nanoseconds(began),
            )
        finally:
            _ROOT.reset(forced)
        span.end(_nanoseconds(ended))


def tracing(settings: Settings, deployment: str) -> Tracing:
    """Return the tracing that the settings enable, for a process of a deployment.

    Raises:
        ConfigurationError: tracing is enabled and the exporter is not installed.
    """
    if settings.tracing.endpoint is None:
        return Tracing()
    return Tracing(provider(settings.tracing, deployment, BatchSpanProcessor(_exporter(settings.tracing.endpoint))))


def provider(settings: TracingSettings, deployment: str, processor: SpanProcessor) -> TracerProvider:
    """Return a provider whose spans go through ``processor``."""
    spans = TracerProvider(
        sampler=TraceIdRatioBased(settings.sample_ratio),
        resource=Resource.create({"service.name": "murmuration", "murmuration.deployment": deployment}),
        id_generator=_TaskIds(),
    )
    spans.add_span_processor(processor)
    return spans


def task_ids(media_prefix: str) -> tuple[int, int]:
    """Return the ids of a task's trace and of its root span."""
    digest = hashlib.sha256(f"murmuration:{media_prefix}".encode()).digest()
    return int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])


def _parent(media_prefix: str) -> Any:
    """Return the context of the task's root span, so that children are sampled as the root is."""
    trace_id, span_id = task_ids(media_prefix)
    return trace.set_span_in_context(
        NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
    )


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)


def _exporter(endpoint: str) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigurationError(
            "tracing.endpoint is set, but the exporter is not installed: pip install 'murmuration-asr[otel]'."
        ) from error
    return OTLPSpanExporter(endpoint=endpoint)


_ROOT: ContextVar[tuple[int, int] | None] = ContextVar("root", default=None)


class _TaskIds(IdGenerator):
    """A generator of random ids, which returns a task's computed ids while its root span is created."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_trace_id(self) -> int:
        forced = _ROOT.get()
        return forced[0] if forced else self._random.generate_trace_id()

    def generate_span_id(self) -> int:
        forced = _ROOT.get()
        return forced[1] if forced else self._random.generate_span_id()
