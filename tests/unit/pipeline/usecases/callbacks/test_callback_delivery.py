import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.retry import RetrySchedule
from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.domain.tasks.task import NewTask, Priority, Task, TaskError
from pipeline.errors import DatabaseUnavailable, TaskNotFound
from pipeline.ports import CallbackResponse, DeliveryVerdict, Lease, OutboxMessage
from pipeline.settings import CallbackSettings
from pipeline.testing.fake_callback_sender import FakeCallbackSender
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.testing.recording_metrics import RecordingMetrics
from pipeline.usecases.callbacks.callback_delivery import (
    MAX_CLAIMED,
    MAX_PER_HOST,
    MAX_RETRY_AFTER_S,
    CallbackDeliverer,
    retry_delay_s,
)
from tests.support.clocks import settle

RANKS = [priority.rank for priority in Priority]
UP = "http://up.example/hook"
DOWN = "http://down.example/hook"
SLOW = "http://slow.example/hook"


def encode(task: Task) -> bytes:
    return json.dumps({"id": task.id, "status": task.status, "error": task.error.code if task.error else None}).encode()


@dataclass
class DeliveryWorld:
    """A deliverer with its fakes."""

    settings: CallbackSettings = field(default_factory=CallbackSettings)
    store_type: type[MemoryTaskStore] = MemoryTaskStore

    def __post_init__(self) -> None:
        self.clock = ManualClock()
        self.store = self.store_type(self.clock)
        self.sender = FakeCallbackSender({UP: (200, "thanks"), SLOW: (200, "at last")})
        self.metrics = RecordingMetrics()
        self.deliverer = self.another_deliverer()

    def another_deliverer(self) -> CallbackDeliverer:
        return CallbackDeliverer(
            self.store,
            self.sender,
            encode,
            self.clock,
            self.metrics,
            self.settings,
            owner="test",
            jitter=lambda: 1.0,  # the whole of each delay
        )

    async def finished_task(self, url: str, client: str | None = None) -> int:
        task, _ = await self.store.create(NewTask(media_prefix="m", callback_url=url, client=client))
        (claimed,) = await self.store.claim("test", timedelta(minutes=1), 1, RANKS)
        await self.store.fail(Lease(task.id, claimed.fence), TaskError("media_undecodable", "It is a picture."))
        return task.id

    async def due(self) -> Sequence[OutboxMessage]:
        """Claim and return the callbacks that are due now, as another deliverer would."""
        return await self.store.claim_callbacks("other", timedelta(0), 1000)


# --- one round --------------------------------------------------------------------------------------------------------


async def test_nothing_is_sent_if_nothing_is_due() -> None:
    assert await DeliveryWorld().deliverer.run_once() == 0


async def test_a_callback_carries_the_record_and_its_answer_is_recorded() -> None:
    world = DeliveryWorld()
    task_id = await world.finished_task(UP)

    assert await world.deliverer.run_once() == 1

    ((message, body),) = world.sender.sent
    assert (message.task_id, message.url, message.attempts) == (task_id, UP, 0)
    assert json.loads(body) == {"id": task_id, "status": "failed", "error": "media_undecodable"}
    callback = (await world.store.get(task_id)).callback
    assert (callback.status_code, callback.message, callback.time) == (200, "thanks", world.clock.now())
    assert world.metrics.total("callback_attempts", outcome="delivered") == 1


async def test_a_delivered_callback_is_not_sent_again() -> None:
    world = DeliveryWorld()
    await world.finished_task(UP)
    await world.deliverer.run_once()

    world.clock.advance(86_400)

    assert await world.deliverer.run_once() == 0


async def test_a_receiver_that_is_down_is_retried_by_the_schedule_and_then_given_up() -> None:
    world = DeliveryWorld(CallbackSettings(delays_s=(30, 120)))
    await world.finished_task(DOWN)
    attempts_at: list[float] = []

    for _ in range(400):
        attempts_at += [world.clock.monotonic()] * await world.deliverer.run_once()
        world.clock.advance(1)

    assert attempts_at == [0, 30, 150]
    assert [message.attempts for message, _ in world.sender.sent] == [0, 1, 2]
    assert len({message.message_id for message, _ in world.sender.sent}) == 1


async def test_a_receiver_that_comes_back_gets_its_callback() -> None:
    world = DeliveryWorld()
    task_id = await world.finished_task(DOWN)
    await world.deliverer.run_once()
    assert (await world.store.get(task_id)).callback.status_code is None

    world.sender.receivers[DOWN] = (204, "")
    world.clock.advance(30)
    await world.deliverer.run_once()

    assert (await world.store.get(task_id)).callback.status_code == 204


async def test_a_final_answer_ends_it() -> None:
    world = DeliveryWorld()
    world.sender.receivers[UP] = (410, "gone")
    task_id = await world.finished_task(UP)
    await world.deliverer.run_once()

    world.clock.advance(86_400)

    assert await world.deliverer.run_once() == 0
    assert (await world.store.get(task_id)).callback.status_code == 410


class Forgetful(MemoryTaskStore):
    """A store whose task is deleted between the claim of its callback and the read of its record."""

    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        raise TaskNotFound(f"There is no task {task_id}.")


class Away(MemoryTaskStore):
    """A store whose database becomes unavailable between the claim of a callback and the read of its task."""

    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        raise DatabaseUnavailable("The database is away.")


class Outdated(MemoryTaskStore):
    """The store of a version that can't read the rows of a newer one."""

    newer = True

    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        task = await super().get(task_id, include_result=include_result)
        return replace(
            task, defect=RecordDefect("tasks", "engine_name", str(task_id), newer=True) if self.newer else None
        )


class Broken(MemoryTaskStore):
    """A store in which the claim of callbacks raises an unexpected error."""

    broken = True

    async def claim_callbacks(self, owner: str, lease: timedelta, limit: int) -> list[OutboxMessage]:
        if self.broken:
            raise KeyError(7)
        return await super().claim_callbacks(owner, lease, limit)


async def test_a_task_that_only_a_newer_version_can_read_is_left_to_it() -> None:
    world = DeliveryWorld(store_type=Outdated)
    await world.finished_task(UP)

    assert await world.deliverer.run_once() == 1
    assert world.sender.sent == []

    world.store.newer = False  # type: ignore[attr-defined]
    world.clock.advance(3600)
    assert await world.deliverer.run_once() == 1
    assert len(world.sender.sent) == 1


async def test_the_deliverer_continues_after_a_defect_and_reports_it() -> None:
    world = DeliveryWorld(store_type=Broken)
    await world.finished_task(UP)
    stop = asyncio.Event()
    running = asyncio.create_task(world.deliverer.run(stop))
    await settle()
    assert world.deliverer.failure_messages == ("Claiming callbacks fails: see the log.",)

    world.store.broken = False  # type: ignore[attr-defined]
    world.clock.advance(30)
    await settle()
    assert len(world.sender.sent) == 1
    assert world.deliverer.failure_messages == ()
    stop.set()
    await running


async def test_a_deleted_task_ends_its_callback() -> None:
    world = DeliveryWorld(store_type=Forgetful)
    await world.finished_task(UP)

    assert await world.deliverer.run_once() == 1
    assert world.sender.sent == []

    world.clock.advance(86_400)
    assert await world.deliverer.run_once() == 0


async def test_a_task_may_be_deleted_while_its_callback_is_posted() -> None:
    world = DeliveryWorld()
    world.sender.held[SLOW] = asyncio.Event()
    task_id = await world.finished_task(SLOW)
    round_ = asyncio.create_task(world.deliverer.run_once())
    await settle()

    await world.store.delete(task_id)
    world.sender.held[SLOW].set()

    assert await round_ == 1


# --- independence -----------------------------------------------------------------------------------------------------


async def test_a_slow_receiver_delays_no_other() -> None:
    world = DeliveryWorld()
    world.sender.held[SLOW] = asyncio.Event()
    slow = [await world.finished_task(SLOW) for _ in range(100)]
    quick = [await world.finished_task(UP) for _ in range(20)]
    round_ = asyncio.create_task(world.deliverer.run_once())

    await settle()

    assert [(await world.store.get(task_id)).callback.status_code for task_id in quick] == [200] * 20
    assert [(await world.store.get(task_id)).callback.status_code for task_id in slow] == [None] * 100
    assert sum(message.url == SLOW for message, _ in world.sender.sent) == MAX_PER_HOST
    world.sender.held[SLOW].set()
    assert await round_ == 120
    assert {(await world.store.get(task_id)).callback.status_code for task_id in slow} == {200}


@pytest.mark.parametrize("client", ["modest", None])
async def test_one_clients_slow_receivers_do_not_delay_others(client: str | None) -> None:
    world = DeliveryWorld()
    for number in range(MAX_CLAIMED + 200):
        url = f"http://slow{number}.example/"
        world.sender.held.setdefault(url, asyncio.Event())
        await world.finished_task(url, "greedy")
    other = await world.finished_task(UP, client)
    async with Running(world):
        await settle()
        assert (await world.store.get(other)).callback.status_code == 200
        assert len(world.sender.sent) == world.settings.concurrency // 2 + 1
        for held in world.sender.held.values():
            held.set()


async def test_concurrent_deliveries_are_limited_by_the_setting() -> None:
    world = DeliveryWorld(CallbackSettings(concurrency=3))
    for number in range(10):
        url = f"http://{number}.example/"
        world.sender.held[url] = asyncio.Event()
        await world.finished_task(url)
    round_ = asyncio.create_task(world.deliverer.run_once())

    await settle()
    assert len(world.sender.sent) == 3

    for event in world.sender.held.values():
        event.set()
    await round_
    assert len(world.sender.sent) == 10


async def test_a_callback_that_waited_too_long_for_a_slot_stays_in_the_outbox() -> None:
    world = DeliveryWorld()
    world.sender.held[SLOW] = asyncio.Event()
    for _ in range(MAX_PER_HOST + 3):
        await world.finished_task(SLOW)
    round_ = asyncio.create_task(world.deliverer.run_once())
    await settle()

    world.clock.advance(2 * world.settings.timeout_s + 1)
    world.sender.held[SLOW].set()
    await round_

    assert len(world.sender.sent) == MAX_PER_HOST
    world.clock.advance(world.settings.timeout_s + 10)
    assert await world.deliverer.run_once() == 3


async def test_a_backlog_is_claimed_in_batches_and_delivered_without_a_pause() -> None:
    world = DeliveryWorld()
    world.sender.held[UP] = asyncio.Event()
    for _ in range(MAX_CLAIMED + 100):
        await world.finished_task(UP)

    async with Running(world):
        assert len(await world.due()) == 100
        world.deliverer.wake()
        await settle()
        assert len(await world.due()) == 100

        world.sender.held[UP].set()
        for _ in range(20):
            await settle()

        assert len(world.sender.sent) == MAX_CLAIMED + 100


async def test_two_deliverers_share_the_work() -> None:
    world = DeliveryWorld()
    for _ in range(10):
        await world.finished_task(UP)

    counts = await asyncio.gather(world.deliverer.run_once(), world.another_deliverer().run_once())

    assert sum(counts) == len(world.sender.sent) == 10


async def test_an_invalid_url_is_left_to_the_sender() -> None:
    world = DeliveryWorld()
    await world.finished_task("http://[")

    assert await world.deliverer.run_once() == 1
    assert len(world.sender.sent) == 1


# --- outages of the database ------------------------------------------------------------------------------------------


async def test_a_round_raises_while_the_database_is_unavailable() -> None:
    world = DeliveryWorld()
    world.store.available = False

    with pytest.raises(DatabaseUnavailable):
        await world.deliverer.run_once()


async def test_an_attempt_is_recorded_when_the_database_is_back() -> None:
    world = DeliveryWorld()
    world.sender.held[SLOW] = asyncio.Event()
    task_id = await world.finished_task(SLOW)
    round_ = asyncio.create_task(world.deliverer.run_once())
    await settle()

    world.store.available = False
    world.sender.held[SLOW].set()
    await settle()
    assert not round_.done()

    world.store.available = True
    world.clock.advance(1)
    await round_
    assert (await world.store.get(task_id)).callback.status_code == 200
    assert len(world.sender.sent) == 1


async def test_an_attempt_that_cannot_be_recorded_is_made_again_under_the_same_id() -> None:
    world = DeliveryWorld()
    world.sender.held[SLOW] = asyncio.Event()
    await world.finished_task(SLOW)
    round_ = asyncio.create_task(world.deliverer.run_once())
    await settle()

    world.store.available = False
    world.sender.held[SLOW].set()
    for _ in range(60):
        await settle()
        world.clock.advance(1)
    await round_
    world.store.available = True

    assert await world.deliverer.run_once() == 1
    first, second = (message.message_id for message, _ in world.sender.sent)
    assert first == second


async def test_a_task_that_cannot_be_read_keeps_its_callback() -> None:
    world = DeliveryWorld(store_type=Away)
    await world.finished_task(UP)

    assert await world.deliverer.run_once() == 1

    assert world.sender.sent == []
    world.clock.advance(60)
    assert len(await world.due()) == 1


async def test_a_defect_is_logged_and_does_not_affect_other_callbacks(caplog: pytest.LogCaptureFixture) -> None:
    world = DeliveryWorld()
    bad, good = await world.finished_task(UP), await world.finished_task(UP)

    def picky(task: Task) -> bytes:
        if task.id == bad:
            raise KeyError("text")
        return encode(task)

    world.deliverer._encode = picky

    assert await world.deliverer.run_once() == 2
    assert (await world.store.get(good)).callback.status_code == 200
    assert "because of a defect in the service" in caplog.text


# --- the loop ---------------------------------------------------------------------------------------------------------


@dataclass
class Running:
    """A running loop of a deliverer."""

    world: DeliveryWorld

    async def __aenter__(self) -> "Running":
        self.stop = asyncio.Event()
        self.loop = asyncio.create_task(self.world.deliverer.run(self.stop))
        await settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        await self.loop


async def test_the_loop_delivers_at_once_when_woken() -> None:
    world = DeliveryWorld()
    async with Running(world):
        task_id = await world.finished_task(UP)
        await settle()
        assert world.sender.sent == []

        world.deliverer.wake()
        await settle()

        assert (await world.store.get(task_id)).callback.status_code == 200


async def test_the_loop_polls_for_callbacks_that_were_not_signalled() -> None:
    world = DeliveryWorld()
    async with Running(world):
        await world.finished_task(UP)

        world.clock.advance(3)
        await settle()

        assert len(world.sender.sent) == 1


async def test_the_loop_goes_on_while_a_receiver_is_slow() -> None:
    world = DeliveryWorld()
    world.sender.held[SLOW] = asyncio.Event()
    await world.finished_task(SLOW)
    async with Running(world):
        task_id = await world.finished_task(UP)
        world.deliverer.wake()
        await settle()

        assert (await world.store.get(task_id)).callback.status_code == 200
        world.sender.held[SLOW].set()


async def test_the_loop_continues_after_an_outage_of_the_database() -> None:
    world = DeliveryWorld()
    world.store.available = False
    async with Running(world) as running:
        for _ in range(20):
            world.clock.advance(30)
            await settle()
        assert not running.loop.done()

        world.store.available = True
        await world.finished_task(UP)
        world.clock.advance(30)
        await settle()

        assert len(world.sender.sent) == 1


async def test_stopping_ends_the_deliveries_under_way_and_leaves_the_rest() -> None:
    world = DeliveryWorld()
    world.sender.held[SLOW] = asyncio.Event()
    for _ in range(MAX_PER_HOST + 5):
        await world.finished_task(SLOW)
    async with Running(world) as running:
        running.stop.set()
        await settle()
        assert not running.loop.done()
        world.sender.held[SLOW].set()

    assert len(world.sender.sent) == MAX_PER_HOST
    world.clock.advance(60)
    assert len(await world.due()) == 5


async def test_cancelling_the_loop_leaves_nothing_behind() -> None:
    world = DeliveryWorld()
    world.sender.held[SLOW] = asyncio.Event()
    await world.finished_task(SLOW)
    async with Running(world) as running:
        running.loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running.loop
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        running.loop = asyncio.create_task(asyncio.sleep(0))

    world.clock.advance(60)
    assert len(await world.due()) == 1


# --- delays of retries ------------------------------------------------------------------------------------------------


def answer(verdict: DeliveryVerdict, retry_after_s: float | None = None) -> CallbackResponse:
    return CallbackResponse(verdict, 503, "", retry_after_s)


@pytest.mark.parametrize(
    ("attempts", "verdict", "retry_after", "expected"),
    [
        (1, DeliveryVerdict.DELIVERED, None, None),
        (1, DeliveryVerdict.FINAL, 60.0, None),
        (1, DeliveryVerdict.RETRY, None, 30.0),
        (2, DeliveryVerdict.RETRY, None, 120.0),
        (3, DeliveryVerdict.RETRY, None, None),
        (3, DeliveryVerdict.RETRY, 60.0, None),
        (1, DeliveryVerdict.RETRY, 10.0, 30.0),
        (1, DeliveryVerdict.RETRY, 100.0, 100.0),
        (1, DeliveryVerdict.RETRY, 1e9, MAX_RETRY_AFTER_S),
        (1, DeliveryVerdict.RETRY, float("inf"), MAX_RETRY_AFTER_S),
    ],
)
def test_retry_delay(
    attempts: int, verdict: DeliveryVerdict, retry_after: float | None, expected: float | None
) -> None:
    assert retry_delay_s(RetrySchedule((30.0, 120.0)), attempts, answer(verdict, retry_after), lambda: 1.0) == expected


@given(st.integers(1, 10), st.floats(0, 1e12) | st.none(), st.floats(0, 1, exclude_max=True))
def test_retry_after_lengthens_the_delay_and_never_shortens_it(
    attempts: int, retry_after: float | None, jitter: float
) -> None:
    schedule = RetrySchedule()
    delay_s = retry_delay_s(schedule, attempts, answer(DeliveryVerdict.RETRY, retry_after), lambda: jitter)
    planned = schedule.delay_s(attempts, lambda: jitter)

    assert (delay_s is None) is (planned is None)
    if delay_s is not None and planned is not None:
        assert planned <= delay_s <= max(planned, MAX_RETRY_AFTER_S)
