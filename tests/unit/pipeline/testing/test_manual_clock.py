from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.testing.manual_clock import ManualClock


def test_time_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(datetime(2025, 1, 1, tzinfo=UTC))
    clock.advance(1.5)

    assert clock.now() == datetime(2025, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert clock.monotonic() == 1.5


def test_time_does_not_run_backwards() -> None:
    with pytest.raises(ValueError, match="backwards"):
        ManualClock().advance(-1)


async def test_sleepers_wake_in_the_order_of_their_time() -> None:
    clock, woken = ManualClock(), list[float]()

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async with asyncio.TaskGroup() as group:
        for seconds in (3, 1, 2, 0):
            group.create_task(sleep(seconds))
        await asyncio.sleep(0.001)
        assert (woken, clock.sleepers) == ([0], 3)
        clock.advance(1.999)
        await asyncio.sleep(0.001)
        assert (woken, clock.sleepers) == ([0, 1], 2)
        clock.advance(5)
    assert woken == [0, 1, 2, 3]
    assert clock.now() - ManualClock().now() == timedelta(seconds=6.999)


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = ManualClock()
    sleeper = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    sleeper.cancel()
    await asyncio.gather(sleeper, return_exceptions=True)

    assert clock.sleepers == 0
    clock.advance(2)
    assert sleeper.cancelled()
