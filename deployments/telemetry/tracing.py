"""OpenTelemetry traces: one a task, through every process that works on it. Off unless ``tracing.endpoint`` is set.

No context travels with the work: a task's trace id is computed from its media prefix, which every process knows that
touches the task, so an attempt that another Dispatcher resumes a day later is still part of the same trace. The root
span is the task's creation; all others are its children.
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
    """Spans of tasks. Without a provider every method does nothing.

    Args:
        provider: where spans go; what it samples is decided by the trace id, so alike in every process.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer: Tracer | None = provider.get_tracer("murmuration") if provider else None

    @property
    def enabled(self) -> bool:
        """Whether anything is traced."""
        return self._tracer is not None

    @contextmanager
    def span(self, name: str, media_prefix: str, **attributes: Attribute) -> Iterator[None]:
        """A span of the task for as long as the block runs; an exception is noted in it and goes on."""
        if self._tracer is None:
            yield
            return
        # Not made current: in an asynchronous generator that would be another task's context by the time it ends.
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
        """A span of the task that is over already; ``failure`` says why it did not go well."""
        if self._tracer is None:
            return
        span = self._tracer.start_span(
            name, _parent(media_prefix), attributes=attributes, start_time=_nanoseconds(began)
        )
        if failure:
            span.set_status(Status(StatusCode.ERROR, failure))
        span.end(_nanoseconds(ended))

    def root(self, name: str, media_prefix: str, began: datetime, ended: datetime, **attributes: Attribute) -> None:
        """The span that all others of the task are children of."""
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
    """The tracing that the settings ask for, for a process of a deployment.

    Raises:
        ConfigurationError: tracing is asked for and the exporter is not installed.
    """
    if settings.tracing.endpoint is None:
        return Tracing()
    return Tracing(provider(settings.tracing, deployment, BatchSpanProcessor(_exporter(settings.tracing.endpoint))))


def provider(settings: TracingSettings, deployment: str, processor: SpanProcessor) -> TracerProvider:
    """A provider of spans that go through ``processor``."""
    made = TracerProvider(
        sampler=TraceIdRatioBased(settings.sample_ratio),
        resource=Resource.create({"service.name": "murmuration", "murmuration.deployment": deployment}),
        id_generator=_TaskIds(),
    )
    made.add_span_processor(processor)
    return made


def task_ids(media_prefix: str) -> tuple[int, int]:
    """The ids of a task's trace and of its root span."""
    digest = hashlib.sha256(f"murmuration:{media_prefix}".encode()).digest()
    return int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])


def _parent(media_prefix: str) -> Any:
    """The context of the task's root span, sampled as that one is."""
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
    """The ids of a task's root span where one is being made, else random ones."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_trace_id(self) -> int:
        forced = _ROOT.get()
        return forced[0] if forced else self._random.generate_trace_id()

    def generate_span_id(self) -> int:
        forced = _ROOT.get()
        return forced[1] if forced else self._random.generate_span_id()
