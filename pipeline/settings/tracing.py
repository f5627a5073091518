"""Settings of the section ``tracing``."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings.section import Section


class TracingSettings(Section):
    """OpenTelemetry traces of tasks."""

    endpoint: str | None = None
    """URL that spans are sent to, as OTLP over HTTP: `http://collector:4318/v1/traces`. Empty: no traces.
    Needs the extra `otel`."""
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of the tasks that are traced."""
