"""Metrics and traces, exported through Ray and OpenTelemetry."""
