from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from deployments.telemetry.trace_export import Tracing, provider, task_ids, tracing
from deployments.telemetry.traced_store import TracedTaskStore
from pipeline.domain.decoding.transcript import Transcript, TranscriptInfo
from pipeline.domain.tasks.task import NewTask, TaskError
from pipeline.errors import ReplicaLost, TaskNotFound
from pipeline.ports import DeliveryAttempt, Lease
from pipeline.settings import Settings, TracingSettings
from pipeline.testing.manual_clock import ManualClock

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
TRANSCRIPT = Transcript(
    text="",
    segments=(),
    info=TranscriptInfo(
        language="en",
        language_probability=1.0,
        duration=1.0,
        duration_after_vad=1.0,
        all_language_probs=None,
        transcription_options={},
        vad_options={},
    ),
)


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def traced(spans: InMemorySpanExporter, ratio: float = 1.0) -> Tracing:
    return Tracing(provider(TracingSettings(sample_ratio=ratio), "Test", SimpleSpanProcessor(spans)))


def ids(span: ReadableSpan) -> tuple[int, int | None]:
    assert span.context is not None
    return span.context.trace_id, span.parent.span_id if span.parent else None


def test_all_spans_of_a_task_are_children_of_its_root_whoever_makes_them(spans: InMemorySpanExporter) -> None:
    traced(spans).root("create", "t1", NOON, NOON)
    with traced(spans).span("split", "t1", part=0):
        pass
    traced(spans).note("attempt", "t1", NOON, NOON + timedelta(seconds=2), failure="replica_lost")

    create, split, attempt = spans.get_finished_spans()
    trace_id, root_id = task_ids("t1")
    assert create.context is not None
    assert (create.context.trace_id, create.context.span_id, create.parent) == (trace_id, root_id, None)
    assert ids(split) == ids(attempt) == (trace_id, root_id)
    assert split.attributes == {"part": 0}
    assert attempt.end_time is not None
    assert attempt.start_time is not None
    assert (attempt.end_time - attempt.start_time, attempt.status.description) == (2_000_000_000, "replica_lost")


def test_tasks_have_traces_of_their_own(spans: InMemorySpanExporter) -> None:
    assert task_ids("t1") != task_ids("t2")
    for prefix in ("t1", "t2"):
        traced(spans).root("create", prefix, NOON, NOON)
    first, second = spans.get_finished_spans()
    assert ids(first)[0] != ids(second)[0]


def test_what_fails_is_marked_and_still_fails(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ReplicaLost), traced(spans).span("transcribe", "t1"):
        raise ReplicaLost("It died.")
    [span] = spans.get_finished_spans()
    assert span.status.description == "ReplicaLost"


async def test_a_stream_that_is_closed_elsewhere_ends_its_span(spans: InMemorySpanExporter) -> None:
    async def stream() -> AsyncIterator[int]:
        with traced(spans).span("transcribe", "t1"):
            yield 1
            yield 2

    async for _ in (running := stream()):
        break
    await running.aclose()  # type: ignore[attr-defined]
    assert [span.name for span in spans.get_finished_spans()] == ["transcribe"]


def test_without_an_endpoint_nothing_happens() -> None:
    off = tracing(Settings(), "Test")
    with off.span("split", "t1"):
        off.note("attempt", "t1", NOON, NOON)
        off.root("create", "t1", NOON, NOON)
    assert not off.enabled


def test_a_ratio_keeps_a_share_of_the_roots(spans: InMemorySpanExporter) -> None:
    for number in range(200):
        traced(spans, ratio=0.5).root("create", f"t{number}", NOON, NOON)
    assert 50 < len(spans.get_finished_spans()) < 150


def test_a_ratio_keeps_whole_tasks(spans: InMemorySpanExporter) -> None:
    half = traced(spans, ratio=0.5)
    for number in range(100):
        half.root("create", f"t{number}", NOON, NOON)
        half.note("attempt", f"t{number}", NOON, NOON)
    per_trace = [ids(span)[0] for span in spans.get_finished_spans()]
    assert all(per_trace.count(trace_id) == 2 for trace_id in per_trace)


@pytest.fixture
async def store(tmp_path: Path, spans: InMemorySpanExporter) -> AsyncIterator[TracedTaskStore]:
    arguments: dict[str, Any] = {"busy_timeout_s": 5.0, "idempotency_ttl_s": 60.0, "ageing_s": 60.0, "max_losses": 3}
    url = f"sqlite+aiosqlite:///{tmp_path / 'tasks.db'}"
    opened = TracedTaskStore(url, ManualClock(), tracing=traced(spans), **arguments)
    await opened.migrate()
    yield opened
    await opened.close()


async def test_the_store_tells_a_tasks_life(store: TracedTaskStore, spans: InMemorySpanExporter) -> None:
    lease = timedelta(seconds=30)
    await store.create(NewTask(media_prefix="t1", callback_url="https://example.com/hook"))
    [first] = await store.claim("me", lease, 1, (0, 1, 2))
    await store.fail(Lease(first.id, first.fence), TaskError("replica_lost", "It died."), store._time.now())
    [second] = await store.claim("me", lease, 1, (0, 1, 2))
    await store.complete(Lease(second.id, second.fence), TRANSCRIPT)
    [message] = await store.claim_callbacks("me", lease, 1)
    await store.record_delivery(message, DeliveryAttempt(False, 500, "", None))

    told = [(span.name, span.status.description) for span in spans.get_finished_spans()]
    assert told == [
        ("create", None),
        ("queued", None),
        ("attempt", "replica_lost"),
        ("queued", None),
        ("attempt", None),
        ("callback", "status 500"),
    ]
    assert {ids(span)[0] for span in spans.get_finished_spans()} == {task_ids("t1")[0]}


async def test_an_attempt_at_a_task_that_was_deleted_is_recorded(store: TracedTaskStore) -> None:
    lease = timedelta(seconds=30)
    await store.create(NewTask(media_prefix="t1", callback_url="https://example.com/hook"))
    [task] = await store.claim("me", lease, 1, (0, 1, 2))
    await store.complete(Lease(task.id, task.fence), TRANSCRIPT)
    [message] = await store.claim_callbacks("me", lease, 1)
    await store.delete(task.id)
    await store.record_delivery(message, DeliveryAttempt(True, 200, "", None))
    with pytest.raises(TaskNotFound):
        await store.get(task.id)
