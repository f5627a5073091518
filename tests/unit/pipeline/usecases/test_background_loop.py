from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from pipeline.errors import DatabaseUnavailable
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.recording_metrics import RecordingMetrics
from pipeline.usecases.background_loop import FAILURE_BACKOFF, RoundOutcome, SupervisedLoop, failure_messages


def raising(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def step() -> None:
        raise error

    return step


async def fine() -> None:
    """Do nothing, as a round that succeeds."""


class Supervision:
    def __init__(self) -> None:
        self.metrics = RecordingMetrics()
        self.outcomes: list[RoundOutcome] = []
        self.loop = SupervisedLoop(
            "claim",
            "claiming tasks",
            ManualClock(),
            self.metrics,
            outage_s=lambda outages: 10.0 * outages,
            changed=self.outcomes.append,
            jitter=lambda: 1.0,
        )


@pytest.mark.parametrize("error", [ValueError("rank 7"), KeyError(7), RecursionError(), AssertionError(), OSError()])
async def test_a_round_may_raise_anything(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    supervision = Supervision()
    pause_s = await supervision.loop.attempt(raising(error))

    assert pause_s == FAILURE_BACKOFF.base_s
    assert supervision.metrics.total("loop_errors", loop="claim") == 1
    assert supervision.loop.failure_message == "Claiming tasks fails: see the log."
    [record] = caplog.records
    assert record.exc_info
    assert record.exc_info[1] is error
    assert (record.levelno, vars(record)["loop"]) == (logging.ERROR, "claim")


async def test_pauses_grow_and_are_bounded() -> None:
    loop = Supervision().loop
    pauses = [await loop.attempt(raising(ValueError())) for _ in range(200)]
    assert pauses[:4] == [2.0, 4.0, 8.0, 16.0]
    assert max(pause for pause in pauses if pause is not None) == FAILURE_BACKOFF.cap_s


async def test_a_round_that_succeeds_clears_the_failure() -> None:
    supervision = Supervision()
    await supervision.loop.attempt(raising(ValueError()))
    assert await supervision.loop.attempt(fine) is None
    assert supervision.loop.failure_message is None
    assert await supervision.loop.attempt(raising(ValueError())) == FAILURE_BACKOFF.base_s
    assert supervision.outcomes == [RoundOutcome.FAILED, RoundOutcome.DONE, RoundOutcome.FAILED]


async def test_an_outage_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    supervision = Supervision()
    away = raising(DatabaseUnavailable("The task database does not answer."))
    assert [await supervision.loop.attempt(away) for _ in range(3)] == [10.0, 20.0, 30.0]
    assert supervision.loop.failure_message is None
    assert supervision.metrics.total("loop_errors", loop="claim") == 0
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


@pytest.mark.parametrize("signal", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit()])
async def test_a_loop_can_be_cancelled(signal: BaseException) -> None:
    with pytest.raises(type(signal)):
        await Supervision().loop.round(raising(signal))


async def test_a_round_that_failed_is_followed_by_its_pause() -> None:
    clock = ManualClock()
    loop = SupervisedLoop("claim", "claiming tasks", clock, RecordingMetrics(), jitter=lambda: 1.0)
    running = asyncio.create_task(loop.round(raising(ValueError())))
    while not clock.sleepers:
        await asyncio.sleep(0)
    assert not running.done()
    clock.advance(FAILURE_BACKOFF.base_s)
    assert await running is False
    assert await loop.round(fine) is True


async def test_failing_loops_are_reported_together() -> None:
    broken, whole = Supervision().loop, Supervision().loop
    await broken.attempt(raising(ValueError()))
    assert failure_messages(whole, broken) == ("Claiming tasks fails: see the log.",)


async def test_rounds_run_at_once_and_whenever_they_are_woken() -> None:
    rounds, wake = asyncio.Semaphore(0), asyncio.Event()

    async def step() -> None:
        rounds.release()

    running = asyncio.create_task(Supervision().loop.run(step, wake, poll_s=60.0))
    async with asyncio.timeout(5):
        await rounds.acquire()
        wake.set()
        await rounds.acquire()
    running.cancel()
    assert rounds.locked()


async def test_rounds_run_at_intervals() -> None:
    clock, rounds = ManualClock(), asyncio.Semaphore(0)
    loop = SupervisedLoop("heartbeat", "renewing leases", clock, RecordingMetrics())

    async def step() -> None:
        rounds.release()

    running = asyncio.create_task(loop.run_every(10.0, step))
    async with asyncio.timeout(5):
        for _ in range(2):
            while not clock.sleepers:
                await asyncio.sleep(0)
            assert rounds.locked()
            clock.advance(10.0)
            await rounds.acquire()
    running.cancel()
