from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.errors import AttemptsExhausted, MediaUndecodable, ReplicaLost
from pipeline.ports import SplitDone, SplitPart, SplitRequest
from pipeline.testing.fake_splitter import FakeSplitter, make_chunks
from pipeline.usecases.dispatch.resumable_splitter import ResumableSplitter
from tests.support.clocks import QuickClock

REQUEST = SplitRequest(1, "a/source", "a", TranscriptionOptions(), 15.0)
PARTS = tuple(make_chunks(2, first=2 * number, part=number) for number in range(4))


class Fragile(FakeSplitter):
    """A splitter that dies once after each of the given parts."""

    def __init__(self, *dies_after: int) -> None:
        super().__init__(*PARTS)
        self._dies_after = list(dies_after)

    async def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        async for event in super().split(request):
            yield event
            if isinstance(event, SplitPart) and event.part in self._dies_after:
                self._dies_after.remove(event.part)
                raise ReplicaLost("The process died.")


async def events_of(splitter: FakeSplitter, max_losses: int = 2) -> list[SplitPart | SplitDone]:
    resuming = ResumableSplitter(splitter, QuickClock(), max_losses)
    return [event async for event in resuming.split(REQUEST)]


async def test_an_undisturbed_split_is_passed_on() -> None:
    assert await events_of(Fragile()) == [event async for event in FakeSplitter(*PARTS).split(REQUEST)]


async def test_parts_that_were_yielded_are_not_made_again() -> None:
    splitter = Fragile(0, 1, 2)
    *parts, done = await events_of(splitter)

    assert [part.part for part in parts if isinstance(part, SplitPart)] == [0, 1, 2, 3]
    assert isinstance(done, SplitDone)
    starts = [(request.first_part, request.first_chunk, request.resume_at) for request in splitter.requests]
    ends = [part[-1].spans[-1].end for part in PARTS]
    assert starts == [(0, 0, 0), (1, 2, ends[0]), (2, 4, ends[1]), (3, 6, ends[2])]


async def test_a_recording_that_kills_its_process_repeatedly_is_given_up() -> None:
    splitter = FakeSplitter(failure=ReplicaLost("The process died."))
    with pytest.raises(AttemptsExhausted, match="3 times in a row"):
        await events_of(splitter, max_losses=3)
    assert len(splitter.requests) == 3


async def test_a_media_error_is_not_retried() -> None:
    splitter = FakeSplitter(PARTS[0], failure=MediaUndecodable("No."))
    with pytest.raises(MediaUndecodable):
        await events_of(splitter)
    assert len(splitter.requests) == 1


class SharedProcess(FakeSplitter):
    """One process for all recordings, which dies with all of them when it splits the one that kills it."""

    def __init__(self, poison: int) -> None:
        super().__init__(*PARTS)
        self._poison = poison
        self._death = asyncio.Event()

    async def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        death = self._death
        for _ in range(5):
            await asyncio.sleep(0)
        if request.task_id == self._poison:
            self._death.set()
            self._death = asyncio.Event()
        if death.is_set():
            raise ReplicaLost("The process died.")
        async for event in super().split(request):
            yield event


async def test_a_recording_that_kills_its_process_fails_alone() -> None:
    resuming = ResumableSplitter(SharedProcess(poison=3), QuickClock(), max_losses=3)

    async def split(task_id: int) -> int:
        return len([event async for event in resuming.split(replace(REQUEST, task_id=task_id))])

    outcomes = await asyncio.gather(*map(split, range(6)), return_exceptions=True)

    assert isinstance(outcomes.pop(3), AttemptsExhausted)
    assert outcomes == [len(PARTS) + 1] * 5
