from __future__ import annotations

import asyncio

import pytest

from pipeline.domain.tasks.client import Client, Scope
from pipeline.errors import MediaUndecodable, QuotaExceeded
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.usecases.tasks.extraction_charge import CHARGE_INTERVAL_S, charge_while_extracting, refuse_extraction

ANN = Client("ann", frozenset({Scope.WRITE}), max_audio_s=600.0)
TWO_MINUTES = 120 * 16_000


async def used_s(store: MemoryTaskStore) -> float:
    return (await store.client_load("ann")).audio_s


async def test_an_extraction_is_charged_at_its_start_and_as_it_progresses() -> None:
    clock = ManualClock()
    store = MemoryTaskStore(clock)
    async with charge_while_extracting(store, ANN, clock, TWO_MINUTES) as progress:
        assert await used_s(store) == 120.0
        progress(90.0)
        await _pass(clock)
        assert await used_s(store) == 120.0, "an estimate stands until it is passed"
        progress(500.0)
        await _pass(clock)
        assert await used_s(store) == 500.0
    assert await used_s(store) == 500.0


@pytest.mark.parametrize("decoded_s", [0.0, 30.0])
async def test_decoded_audio_is_charged_even_if_the_extraction_fails(decoded_s: float) -> None:
    clock = ManualClock()
    store = MemoryTaskStore(clock)

    async def extract() -> None:
        async with charge_while_extracting(store, ANN, clock, TWO_MINUTES) as progress:
            progress(decoded_s)
            raise MediaUndecodable("No decoder knows this.")

    with pytest.raises(MediaUndecodable):
        await extract()
    assert await used_s(store) == decoded_s


async def test_a_client_whose_audio_is_used_up_is_refused_before_and_after_the_upload() -> None:
    clock = ManualClock()
    store = MemoryTaskStore(clock)
    await refuse_extraction(store, ANN, clock)
    async with charge_while_extracting(store, ANN, clock, 1) as progress:
        progress(600.0)
    with pytest.raises(QuotaExceeded):
        await refuse_extraction(store, ANN, clock)
    with pytest.raises(QuotaExceeded):
        async with charge_while_extracting(store, ANN, clock, 1):
            pytest.fail("it may not begin")


async def test_without_a_client_nothing_is_charged() -> None:
    clock = ManualClock()
    store = MemoryTaskStore(clock)
    store.available = False
    await refuse_extraction(store, None, clock)
    async with charge_while_extracting(store, None, clock, 1) as progress:
        progress(1e9)


async def test_an_outage_of_the_database_does_not_fail_the_extraction() -> None:
    clock = ManualClock()
    store = MemoryTaskStore(clock)
    async with charge_while_extracting(store, ANN, clock, TWO_MINUTES) as progress:
        progress(500.0)
        store.available = False
        await _pass(clock)
    store.available = True
    assert await used_s(store) == 120.0


async def _pass(clock: ManualClock) -> None:
    while not clock.sleepers:
        await asyncio.sleep(0)
    clock.advance(CHARGE_INTERVAL_S)
    for _ in range(5):
        await asyncio.sleep(0)
