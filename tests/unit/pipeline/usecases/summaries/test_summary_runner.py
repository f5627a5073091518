from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from pipeline.domain.decoding.transcript import Transcript, TranscriptInfo
from pipeline.domain.summaries.summary import SummaryOptions, SummaryStatus
from pipeline.domain.tasks.task import NewTask, Status, Task
from pipeline.errors import (
    LlmKeyRefused,
    LlmNotConfigured,
    LlmRateLimited,
    LlmTimeout,
    LlmUnreachable,
    NothingSaid,
    ReplicaLost,
)
from pipeline.ports import Lease
from pipeline.settings import DispatchSettings, LlmSettings
from pipeline.testing.fake_summarizer import FakeSummarizer
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.testing.recording_metrics import RecordingMetrics
from pipeline.usecases.summaries.summary_runner import SummaryRunner
from tests.support.clocks import QuickClock

LEASE = timedelta(seconds=30)
OPTIONS = SummaryOptions(summary_prompt="For the board.")
TRANSCRIPT = Transcript("Hello.", (), TranscriptInfo("en", 0.9, 12.5, 9.0))


@dataclass
class RunnerWorld:
    """A runner with its fakes."""

    summarizer: FakeSummarizer = field(default_factory=FakeSummarizer)
    llm: LlmSettings = field(default_factory=lambda: LlmSettings(retry_base_s=0.001))
    metrics: RecordingMetrics = field(default_factory=RecordingMetrics)
    ended: list[Task] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = QuickClock()
        self.store = MemoryTaskStore(self.clock)
        self.dispatch = DispatchSettings(poll_s=0.005, heartbeat_s=0.01)

    def runner(self, owner: str = "one") -> SummaryRunner:
        return SummaryRunner(
            self.store,
            self.summarizer,
            self.clock,
            self.metrics,
            self.dispatch,
            self.llm,
            owner=owner,
            finished=self.ended.append,
        )

    @asynccontextmanager
    async def running(self, owner: str = "one") -> AsyncIterator[SummaryRunner]:
        runner = self.runner(owner)
        loop = asyncio.create_task(runner.run())
        try:
            yield runner
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)

    async def transcribed(self, **fields: object) -> Task:
        await self.store.create(NewTask(media_prefix="a", summary_options=OPTIONS, **fields))  # type: ignore[arg-type]
        [task] = await self.store.claim("me", LEASE, 1, (0, 1, 2))
        return await self.store.complete(Lease(task.id, task.fence), TRANSCRIPT)

    async def until(self, task: Task, reached: Callable[[Task], bool]) -> Task:
        async with asyncio.timeout(5):
            while not reached(current := await self.store.get(task.id)):
                await asyncio.sleep(0.001)
            return current

    async def end_of(self, task: Task) -> Task:
        return await self.until(task, lambda task: task.status.finished)

    async def ordered(self, number: int = 1) -> None:
        async with asyncio.timeout(5):
            while len(self.summarizer.orders) < number:
                await asyncio.sleep(0.001)


async def test_a_due_summary_is_written_and_the_task_completed() -> None:
    world = RunnerWorld()
    task = await world.transcribed()

    async with world.running():
        ended = await world.end_of(task)

    assert (ended.status, ended.summary_status, ended.summary.attempts) == (
        Status.COMPLETED,
        SummaryStatus.COMPLETED,
        1,
    )
    assert ended.summary.result is not None
    [order] = world.summarizer.orders
    assert (order.task_id, order.options, order.api_key) == (task.id, OPTIONS, None)
    assert [task.id for task in world.ended] == [task.id]
    assert world.metrics.total("summaries_finished", outcome="completed") == 1


@pytest.mark.parametrize(
    "trouble",
    [
        LlmUnreachable("The server can't be reached."),
        LlmTimeout("It was silent."),
        LlmRateLimited("Later.", 0),
        ReplicaLost("A replica died."),
    ],
)
async def test_a_temporary_error_is_retried(trouble: Exception) -> None:
    world = RunnerWorld(FakeSummarizer(failures=[trouble, trouble]))
    task = await world.transcribed()

    async with world.running():
        ended = await world.end_of(task)

    assert (ended.summary_status, ended.summary.attempts, ended.summary.error) == (SummaryStatus.COMPLETED, 3, None)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (LlmKeyRefused("The key is not accepted."), "llm_key_refused"),
        (LlmNotConfigured("Set llm.base_url."), "llm_not_configured"),
        (NothingSaid("No speech."), "no_speech"),
        (ZeroDivisionError("/secret/path"), "internal_error"),
    ],
)
async def test_a_permanent_error_ends_the_summary_and_not_the_transcript(trouble: Exception, code: str) -> None:
    world = RunnerWorld(FakeSummarizer(failures=[trouble]))
    task = await world.transcribed(callback_url="https://example.com/hook")

    async with world.running():
        ended = await world.end_of(task)

    assert (ended.status, ended.summary_status, ended.error) == (Status.COMPLETED, SummaryStatus.FAILED, None)
    assert ended.summary.error is not None
    assert ended.summary.error.code == code
    assert "secret" not in ended.summary.error.message
    assert len(world.summarizer.orders) == 1
    assert len(await world.store.claim_callbacks("deliverer", LEASE, 5)) == 1
    assert world.metrics.total("summaries_finished", outcome="failed") == 1


@pytest.mark.parametrize(
    ("trouble", "code"),
    [(LlmTimeout("It was silent."), "llm_timeout"), (ReplicaLost("A replica died."), "attempts_exhausted")],
)
async def test_attempts_are_counted(trouble: Exception, code: str) -> None:
    world = RunnerWorld(FakeSummarizer(failures=[trouble] * 9), LlmSettings(retry_base_s=0.001, max_attempts=3))
    task = await world.transcribed()

    async with world.running():
        ended = await world.end_of(task)

    assert len(world.summarizer.orders) == 3
    assert ended.summary.error is not None
    assert ended.summary.error.code == code


async def test_a_summary_that_kills_its_dispatcher_each_time_is_given_up() -> None:
    world = RunnerWorld(llm=LlmSettings(max_attempts=2))
    task = await world.transcribed()
    for _ in range(2):
        assert await world.store.claim_summaries("victim", timedelta(seconds=-1), 1)

    async with world.running():
        ended = await world.end_of(task)

    assert world.summarizer.orders == []
    assert ended.summary.error is not None
    assert ended.summary.error.code == "attempts_exhausted"


async def test_retry_after_of_the_server_is_respected() -> None:
    clock = ManualClock()
    world = RunnerWorld(FakeSummarizer(failures=[LlmRateLimited("Later.", 90)]))
    world.clock = clock  # type: ignore[assignment]
    world.store = MemoryTaskStore(clock)
    task = await world.transcribed()

    async with world.running() as runner:
        waiting = await world.until(task, lambda task: task.summary.error is not None)
        assert waiting.summary.due_at == clock.now() + timedelta(seconds=90)
        assert waiting.summary_status is SummaryStatus.QUEUED
        clock.advance(90)
        runner.wake()
        assert (await world.end_of(task)).summary_status is SummaryStatus.COMPLETED


async def test_concurrent_summaries_are_limited() -> None:
    world = RunnerWorld(llm=LlmSettings(max_active_summaries=2))
    world.summarizer.open_gate.clear()
    tasks = [await world.transcribed() for _ in range(5)]

    async with world.running():
        await world.ordered(2)
        await asyncio.sleep(0.02)
        assert len(world.summarizer.orders) == 2
        world.summarizer.open_gate.set()
        for task in tasks:
            await world.end_of(task)


async def test_a_stopped_runner_returns_its_unfinished_summaries() -> None:
    world = RunnerWorld()
    world.summarizer.open_gate.clear()
    task = await world.transcribed()

    async with world.running("one"):
        await world.ordered()
    world.summarizer.open_gate.set()

    assert len(world.summarizer.abandoned) == 1
    async with world.running("two"):
        ended = await world.end_of(task)
    assert ended.summary.attempts == 1


async def test_a_runner_that_died_is_replaced_once_its_lease_is_over() -> None:
    world = RunnerWorld()
    task = await world.transcribed()
    await world.store.claim_summaries("dead", timedelta(milliseconds=30), 1)

    async with world.running("alive"):
        ended = await world.end_of(task)

    assert (ended.summary_status, ended.summary.attempts) == (SummaryStatus.COMPLETED, 2)


async def test_a_claimed_summary_is_not_claimed_by_another_runner() -> None:
    world = RunnerWorld()
    world.dispatch = DispatchSettings(poll_s=0.005, heartbeat_s=0.005, lease_duration_s=1.01)
    world.summarizer.open_gate.clear()
    task = await world.transcribed()

    async with world.running("one"), world.running("two"):
        await world.ordered()
        first = (await world.store.get(task.id)).summary.due_at
        await world.until(task, lambda task: bool(first and task.summary.due_at and task.summary.due_at > first))
        world.summarizer.open_gate.set()
        await world.end_of(task)

    assert len(world.summarizer.orders) == 1


@pytest.mark.parametrize("signalled", [True, False])
async def test_a_cancelled_task_s_summary_is_dropped(signalled: bool) -> None:
    """The Ingress reports the cancellation, or the renewal of the lease detects it."""
    world = RunnerWorld()
    world.summarizer.open_gate.clear()
    task = await world.transcribed()

    async with world.running() as runner:
        await world.ordered()
        await world.store.cancel(task.id)
        if signalled:
            await runner.cancel(task.id)
        async with asyncio.timeout(5):
            while not world.summarizer.abandoned:
                await asyncio.sleep(0.001)

    assert (await world.store.get(task.id)).status is Status.CANCELLED
    assert world.ended == []


async def test_an_outage_of_the_database_only_delays_summaries() -> None:
    world = RunnerWorld()
    world.summarizer.open_gate.clear()
    task = await world.transcribed()

    async with world.running():
        await world.ordered()
        world.store.available = False
        world.summarizer.open_gate.set()
        await asyncio.sleep(0.02)
        world.store.available = True
        ended = await world.end_of(task)

    assert (ended.summary_status, ended.summary.attempts) == (SummaryStatus.COMPLETED, 1)


@pytest.mark.parametrize("method", ["claim_summaries", "renew_summaries"])
async def test_summaries_continue_after_a_defect_and_report_it(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = RunnerWorld()
    world.summarizer.open_gate.clear()
    task = await world.transcribed()
    whole, broken = getattr(world.store, method), asyncio.Event()

    async def moody(*arguments: object) -> object:
        if broken.is_set():
            raise KeyError(7)
        return await whole(*arguments)

    monkeypatch.setattr(world.store, method, moody)
    async with world.running() as runner:
        await world.ordered()
        broken.set()
        async with asyncio.timeout(5):
            while not runner.failure_messages:
                await asyncio.sleep(0.001)
        broken.clear()
        world.summarizer.open_gate.set()
        assert (await world.end_of(task)).summary_status is SummaryStatus.COMPLETED
        async with asyncio.timeout(5):
            while runner.failure_messages:
                await asyncio.sleep(0.001)


async def test_no_text_of_the_transcript_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    world = RunnerWorld()
    task = await world.transcribed()

    with caplog.at_level(logging.INFO):
        async with world.running():
            await world.end_of(task)

    [event] = [record for record in caplog.records if record.getMessage() == "summary"]
    assert (vars(event)["task_id"], vars(event)["sent"], vars(event)["written"]) == (task.id, 120, 9)
    assert "greet" not in caplog.text
