from __future__ import annotations

import asyncio
import random

import pytest

from pipeline.domain.scheduling.fair_queue import SlotLimits, TurnRequest
from pipeline.fair_slots import FairSlots, SlicedWork
from pipeline.system_clock import SystemClock
from pipeline.testing.manual_clock import ManualClock
from tests.support.clocks import settle


class Holder:
    """A coroutine that takes a turn and holds it until ``go`` is set."""

    def __init__(self, slots: FairSlots, request: TurnRequest, log: list[str]) -> None:
        self.go = asyncio.Event()
        self.task = asyncio.create_task(self._run(slots, request, log))

    async def _run(self, slots: FairSlots, request: TurnRequest, log: list[str]) -> None:
        async with slots.turn(request):
            log.append(request.client)
            await self.go.wait()


async def test_a_slot_that_becomes_free_goes_to_the_most_urgent() -> None:
    slots, log = FairSlots(SlotLimits(1), ManualClock()), list[str]()
    first = Holder(slots, TurnRequest("first", 2), log)
    await settle()
    others = [Holder(slots, TurnRequest(name, rank), log) for name, rank in (("low", 2), ("normal", 1), ("high", 0))]
    await settle()
    for holder in (first, others[2], others[1], others[0]):
        holder.go.set()
        await settle()
    assert log == ["first", "high", "normal", "low"]
    assert (slots.taken, slots.waiting) == (0, 0)


async def test_whoever_is_cancelled_leaves_no_trace() -> None:
    slots, log = FairSlots(SlotLimits(1), ManualClock()), list[str]()
    holder = Holder(slots, TurnRequest("holder"), log)
    await settle()
    waits, next_one = (Holder(slots, TurnRequest(name), log) for name in ("waits", "next"))
    await settle()
    waits.task.cancel()
    await settle()
    holder.task.cancel()
    await settle()
    assert log == ["holder", "next"]
    next_one.go.set()
    await settle()
    assert (slots.taken, slots.waiting) == (0, 0)


async def test_a_slot_that_was_given_to_one_cancelled_at_that_moment_goes_on() -> None:
    slots, log = FairSlots(SlotLimits(1), ManualClock()), list[str]()
    holder = Holder(slots, TurnRequest("holder"), log)
    await settle()
    unlucky, lucky = (Holder(slots, TurnRequest(name), log) for name in ("unlucky", "lucky"))
    await settle()
    holder.go.set()
    while slots.waiting == 2:
        await asyncio.sleep(0)
    unlucky.task.cancel()  # its slot has been granted, and it has not run since
    await settle()
    assert log == ["holder", "lucky"]
    lucky.go.set()
    await settle()
    assert slots.taken == 0


@pytest.mark.parametrize("seed", range(20))
async def test_no_slot_is_lost_whoever_is_cancelled_when(seed: int) -> None:
    source = random.Random(seed)
    slots = FairSlots(SlotLimits(3, reserve=True), ManualClock())
    most = 0

    async def work() -> None:
        nonlocal most
        async with slots.turn(TurnRequest(source.choice("abc"), source.randrange(3))):
            most = max(most, slots.taken)
            for _ in range(source.randrange(5)):
                await asyncio.sleep(0)

    tasks = []
    for _ in range(60):
        tasks.append(asyncio.create_task(work()))
        if source.random() < 0.5:
            source.choice(tasks).cancel()
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert (slots.taken, slots.waiting) == (0, 0)
    assert most <= 3


async def test_turns_are_charged_by_their_length() -> None:
    clock = ManualClock()
    slots, log = FairSlots(SlotLimits(1), clock), list[str]()

    async def turn(client: str, seconds: float) -> None:
        async with slots.turn(TurnRequest(client)):
            log.append(client)
            clock.advance(seconds)
            await asyncio.sleep(0)

    async def turns(client: str, count: int, seconds: float) -> None:
        for _ in range(count):
            await turn(client, seconds)

    await asyncio.gather(turns("long", 3, 3.0), turns("short", 9, 1.0))
    assert log[:8].count("short") == 6


async def test_what_takes_little_is_done_before_what_takes_much() -> None:
    clock = ManualClock()
    slots, ended = FairSlots(SlotLimits(1), clock), list[str]()

    async def work(name: str, steps: int) -> None:
        slices = SlicedWork(slots, TurnRequest("one"), clock)

        async def step() -> None:
            await asyncio.sleep(0)
            clock.advance(1.0)

        for _ in range(steps):
            await slices.run(step)
        ended.append(name)

    long = [asyncio.create_task(work(f"long {number}", 50)) for number in range(3)]
    await settle()
    await work("short", 3)
    assert ended == ["short"]
    await asyncio.gather(*long)


async def test_a_step_that_takes_long_goes_on_without_its_slot() -> None:
    clock = SystemClock()
    slots = FairSlots(SlotLimits(1), clock)
    hangs = asyncio.Event()
    slow = asyncio.create_task(SlicedWork(slots, TurnRequest("slow"), clock, slow_s=0.0).run(hangs.wait))

    async def step() -> str:
        return "done"

    async with asyncio.timeout(5):
        assert await SlicedWork(slots, TurnRequest("other"), clock).run(step) == "done"
    assert not slow.done()
    hangs.set()
    assert await slow


async def test_a_step_is_seen_through_before_a_cancelled_caller_goes_on() -> None:
    slots = FairSlots(SlotLimits(1), ManualClock())
    ended = list[str]()

    async def step() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("step")

    caller = asyncio.create_task(SlicedWork(slots, TurnRequest("a"), ManualClock()).run(step))
    await settle()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == ["step"]
    assert slots.taken == 0


async def test_a_cancelled_step_that_takes_long_to_end_does_not_keep_its_slot() -> None:
    clock = SystemClock()
    slots = FairSlots(SlotLimits(1), clock)
    begun, ends = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await ends.wait()  # like a thread that has not finished its block

    async def step() -> str:
        return "done"

    caller = asyncio.create_task(SlicedWork(slots, TurnRequest("a"), clock, slow_s=0.2).run(stubborn))
    await begun.wait()
    caller.cancel()
    async with asyncio.timeout(5):
        assert await SlicedWork(slots, TurnRequest("b"), clock).run(step) == "done"
    assert not caller.done()
    ends.set()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_what_is_wrong_with_a_step_is_told_and_its_slot_is_free() -> None:
    slots = FairSlots(SlotLimits(1), ManualClock())

    async def step() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await SlicedWork(slots, TurnRequest("a"), ManualClock()).run(step)
    assert slots.taken == 0
