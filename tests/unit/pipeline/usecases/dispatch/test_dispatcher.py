import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.links.platforms import CrawlRecord, Link, LinkKind
from pipeline.domain.summaries.summary import SummaryOptions
from pipeline.domain.tasks.task import NewTask, Priority, Stage, Status, Task, TaskError
from pipeline.errors import (
    CookiesRequired,
    DatabaseUnavailable,
    DecoderCrashed,
    LiveStream,
    MediaUndecodable,
    MurmurationError,
    PrivateOrRemoved,
    QuotaExceeded,
    RateLimited,
    ReplicaLost,
    SourceTooLarge,
    SourceUnreachable,
    StorageFull,
    StorageUnavailable,
    UnsupportedLink,
    UrlNotAllowed,
)
from pipeline.ports import Lease, TaskQuery
from pipeline.settings import CrawlSettings, Settings
from pipeline.testing.fake_crawler import FakeCrawler
from pipeline.testing.fake_splitter import TRACKS, FakeSplitter, make_chunks
from pipeline.testing.fake_transcriber import FakeTranscriber
from pipeline.usecases.task_completion import TaskCompletion
from tests.support.builders import blocks
from tests.support.faults import raise_defect
from tests.unit.pipeline.usecases.dispatch.dispatch_world import ENDLESS_S, DispatchWorld, MoodyStore, quick_settings


async def test_a_task_is_taken_from_queued_to_completed() -> None:
    world = DispatchWorld()
    task = await world.add()
    async with world.running():
        ended = await world.end_of(task)
    assert ended.status is Status.COMPLETED
    assert ended.result is not None
    assert ended.result.text == "chunk 0 chunk 1 chunk 2 chunk 3 chunk 4"
    assert ended.result.info.language == "en"
    assert ended.result.info.duration == 50.0
    assert ended.result.info.vad_options["threshold"] == 0.5
    assert ended.result.info.tracks == TRACKS
    assert (ended.progress, ended.attempts, ended.file_duration_s) == (1.0, 1, 50.0)
    assert ended.audio_done_s == ended.audio_total_s == 50.0


async def test_the_results_of_the_last_chunk_are_stored_with_the_transcript_only() -> None:
    class CountingStore(MoodyStore):
        saves = 0

        async def save_results(self, lease: Lease, results: Sequence[ChunkResult]) -> None:
            self.saves += 1
            await super().save_results(lease, results)

    world = DispatchWorld(splitter=FakeSplitter(make_chunks(1)))
    store = world.store = CountingStore(world.clock)
    task = await world.add()
    async with world.running():
        ended = await world.end_of(task)
    assert ended.result is not None
    assert (ended.result.text, ended.language, store.saves) == ("chunk 0", "en", 0)


async def test_the_transcript_has_the_vad_options_that_were_used() -> None:
    world = DispatchWorld()
    tuned, untuned = await world.add(vad_threshold=0.7), await world.add(vad_filter=False)
    async with world.running():
        of_tuned, of_untuned = (await world.end_of(tuned)).result, (await world.end_of(untuned)).result
    assert of_tuned is not None
    assert of_tuned.info.vad_options["threshold"] == 0.7
    assert of_tuned.info.vad_options["speech_pad_ms"] == 400
    assert of_untuned is not None
    assert of_untuned.info.vad_options == {}


async def test_a_task_with_a_summary_goes_on_to_that_stage_with_its_transcript() -> None:
    world = DispatchWorld()
    task = await world.add(summary=SummaryOptions())
    async with world.running():
        handed_on = await world.until(task, lambda task: task.stage is Stage.SUMMARIZING)
        async with asyncio.timeout(5):
            while not world.transcribed:
                await asyncio.sleep(0.001)
        assert handed_on.result is not None
        assert (handed_on.status, world.finished) == (Status.PROCESSING, 0)

        watching = asyncio.create_task(world.notifier.watch_end(task.id, 60.0))
        await asyncio.sleep(0)
        [turn] = await world.store.claim_summaries("writer", timedelta(seconds=30), 1)
        ended = await world.store.finish_summary(turn, TaskError("llm_timeout", "It was silent."))
        TaskCompletion(world.notifier, world.metrics, world.clock, world._note_end).report(ended)
        async with asyncio.timeout(5):
            await watching
    assert world.finished == 1
    assert not await world.media.prefixes()


async def test_media_is_deleted_after_completion_unless_it_is_kept() -> None:
    world = DispatchWorld()
    task = await world.add()
    async with world.running():
        await world.end_of(task)
        while await world.media.prefixes():
            await asyncio.sleep(0)
    keeping = DispatchWorld(settings=Settings(media={"keep_source": True}))
    task = await keeping.add()
    async with keeping.running():
        await keeping.end_of(task)
    assert await keeping.media.prefixes()


async def test_silence_is_completed_without_the_model() -> None:
    world = DispatchWorld(splitter=FakeSplitter(()))
    task = await world.add()
    async with world.running():
        ended = await world.end_of(task)
    assert ended.status is Status.COMPLETED
    assert ended.result is not None
    assert (ended.result.text, ended.result.segments) == ("", ())
    assert world.fleet.units == []


async def test_the_language_is_detected_once_and_then_used() -> None:
    world = DispatchWorld(fleet=FakeTranscriber(language="de"))
    task = await world.add()
    async with world.running():
        ended = await world.end_of(task)
    assert [unit.language for unit in world.fleet.units] == [None, "de"]
    assert [len(unit.chunks) for unit in world.fleet.units] == [1, 4]
    assert ended.language == "de"


async def test_a_silent_beginning_does_not_decide_the_language() -> None:
    world = DispatchWorld(fleet=FakeTranscriber(language="de"))
    task = await world.add()
    world.fleet.silent = {(task.id, 0), (task.id, 1)}
    async with world.running():
        await world.end_of(task)
    assert [unit.language for unit in world.fleet.units] == [None, None, None, "de"]


async def test_a_given_language_is_not_detected() -> None:
    world = DispatchWorld()
    task = await world.add(language="zh")
    async with world.running():
        await world.end_of(task)
    assert {unit.language for unit in world.fleet.units} == {"zh"}


async def test_chunks_conditioned_on_previous_text_are_sent_one_by_one_with_it() -> None:
    world = DispatchWorld()
    task = await world.add(language="en", condition_on_previous_text=True)
    async with world.running():
        await world.end_of(task)
    prompts = [unit.previous_tokens for unit in world.fleet.units]
    assert prompts == [(), (0,), (0, 1), (0, 1, 2), (0, 1, 2, 3)]


async def test_a_recording_that_cannot_be_decoded_fails_at_once_and_for_good() -> None:
    world = DispatchWorld(splitter=FakeSplitter(failure=MediaUndecodable("No decoder knows this.")))
    task = await world.add()
    async with world.running():
        ended = await world.end_of(task)
    assert (ended.status, ended.attempts) == (Status.FAILED, 1)
    assert ended.error is not None
    assert (ended.error.code, ended.error.message) == ("media_undecodable", "No decoder knows this.")
    assert not await world.media.prefixes()
    assert world.finished == 1


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (StorageFull("The media store has no room left."), "Waiting for space: the media store has no room left."),
        (StorageUnavailable("The store is away."), "Waiting for the media store: the store is away."),
        (QuotaExceeded("You have used it up.", 0), "Waiting for your quota: you have used it up."),
    ],
    ids=lambda value: value.code if isinstance(value, MurmurationError) else "",
)
async def test_a_task_waits_for_a_cause_that_ends_by_itself(failure: MurmurationError, message: str) -> None:
    world = DispatchWorld(splitter=FakeSplitter(failure=failure))
    task = await world.add()
    async with world.running():
        while (waiting := await world.store.get(task.id)).attempts < 2 * world.settings.dispatch.max_attempts:
            await asyncio.sleep(0.001)
            if waiting.status is Status.QUEUED and waiting.error is not None:
                assert (waiting.error.code, waiting.error.message) == (failure.code, message)
                assert (waiting.failures, waiting.status.finished) == (0, False)
        world.splitter.failure = None
        ended = await world.end_of(task)
    assert (ended.status, ended.error) == (Status.COMPLETED, None)
    assert sum(world.metrics.values("postponed_attempts", code=failure.code)) >= world.settings.dispatch.max_attempts


@pytest.mark.parametrize("failure", [StorageFull("Full."), StorageUnavailable("Away."), QuotaExceeded("Used.", 0)])
async def test_a_task_with_a_connected_client_fails_instead_of_waiting(failure: MurmurationError) -> None:
    world = DispatchWorld(splitter=FakeSplitter(failure=failure))
    task = await world.add()
    await world.store.extend_wait(task.id, world.clock.now() + timedelta(minutes=2))
    async with world.running():
        ended = await world.end_of(task)
    assert (ended.status, ended.error) == (Status.FAILED, TaskError(failure.code, failure.message))


def limited_to(minutes: float) -> Settings:
    key = {"name": "ann", "sha256": "0" * 64, "max_audio_minutes_per_day": minutes}
    return Settings(
        dispatch={"poll_s": 0.01, "heartbeat_s": 0.01, "retry_base_s": 0.001},
        auth={"keys": [key]},
    )


async def test_a_recording_pauses_when_its_clients_audio_is_used_up_and_goes_on_later() -> None:
    parts = (make_chunks(2), make_chunks(2, first=2, part=1), make_chunks(2, first=4, part=2))  # 20 s each
    world = DispatchWorld(splitter=FakeSplitter(*parts), settings=limited_to(30 / 60))
    task = await world.add(language="en")
    other = await world.add(language="en")
    world.store._records[task.id].task = replace(task, client="ann")
    async with world.running():
        while (waiting := await world.store.get(task.id)).error is None:
            await asyncio.sleep(0.001)
        assert (waiting.error.code, waiting.failures, waiting.status) == ("quota_exceeded", 0, Status.QUEUED)
        assert waiting.error.message.startswith("Waiting for your quota: you have used 0.7 of 0.5 minutes of audio")
        assert (await world.store.client_load("ann")).audio_s == 40.0, "what was begun is finished, and no more"
        assert waiting.audio_done_s == 40.0, "what was taken is decoded"
        splits = len(world.splitter.requests)
        assert (await world.end_of(other)).status is Status.COMPLETED
        assert len(world.splitter.requests) == splits, "what waits is not decoded again and again"
        world.clock.ahead_s = 24 * 3600.0 + 1
        ended = await world.end_of(task)
    assert (ended.status, ended.error) == (Status.COMPLETED, None)
    assert (await world.store.client_load("ann")).audio_s == 20.0, "each part counts when it is decoded"


async def test_prepared_audio_is_deleted_while_its_task_waits_for_space() -> None:
    world = DispatchWorld(splitter=FakeSplitter(make_chunks(2), failure=StorageFull("Full.")))
    task = await world.add()
    await world.media.write(f"{task.media_prefix}/pcm/00000.s16le", blocks(bytes(10)))
    async with world.running():
        while not (await world.store.get(task.id)).error:
            await asyncio.sleep(0.001)
        while world.media.keys != {f"{task.media_prefix}/source"}:
            await asyncio.sleep(0.001)


async def test_prepared_audio_that_was_lost_is_made_again() -> None:
    world = DispatchWorld()
    world.fleet.lost.add((1, 3))
    task = await world.add(language="en")
    async with world.running():
        ended = await world.end_of(task)
    assert (ended.status, ended.attempts) == (Status.COMPLETED, 2)
    assert [request.first_part for request in world.splitter.requests] == [0, 0]


async def test_a_splitter_that_dies_is_tried_again_and_then_given_up() -> None:
    world = DispatchWorld(splitter=FakeSplitter(failure=ReplicaLost("A replica died.")))
    task = await world.add()
    async with world.running():
        ended = await world.end_of(task)
    assert (ended.status, ended.attempts, len(world.splitter.requests)) == (Status.FAILED, 1, 3)
    assert ended.error is not None
    assert ended.error.code == "attempts_exhausted"
    assert "The process that prepared the recording died 3 times" in ended.error.message


async def test_a_recording_that_crashes_its_decoder_is_tried_again_and_then_given_up() -> None:
    world = DispatchWorld(
        splitter=FakeSplitter(
            failure=DecoderCrashed(
                "Decoding the recording crashed. If it does so again, convert the recording and send that."
            )
        )
    )
    task = await world.add()
    async with world.running():
        ended = await world.end_of(task)
    assert (ended.status, ended.attempts) == (Status.FAILED, 3)
    assert ended.error is not None
    assert ended.error.code == "decoder_crashed"


async def test_a_defect_shows_no_internal_message(caplog: pytest.LogCaptureFixture) -> None:
    world = DispatchWorld(splitter=FakeSplitter(failure=ZeroDivisionError("/secret/path")))  # type: ignore[arg-type]
    task = await world.add()
    with caplog.at_level(logging.ERROR):
        async with world.running():
            ended = await world.end_of(task)
    assert ended.error is not None
    assert (ended.error.code, "secret" in ended.error.message) == ("internal_error", False)


async def test_a_cancelled_attempt_stops_and_its_task_is_not_claimed_again() -> None:
    world = DispatchWorld()
    world.fleet.open_gate.clear()
    task = await world.add(language="en")
    async with world.running() as dispatcher:
        while not world.fleet.units:
            await asyncio.sleep(0)
        await world.store.cancel(task.id)
        await dispatcher.cancel(task.id)
        world.fleet.open_gate.set()
        await asyncio.sleep(0.05)
        assert (await world.store.get(task.id)).status is Status.CANCELLED
    assert world.fleet.abandoned


async def test_a_cancel_without_a_signal_is_detected_by_the_heartbeat() -> None:
    world = DispatchWorld()
    world.fleet.open_gate.clear()
    task = await world.add(language="en")
    async with world.running():
        while not world.fleet.units:
            await asyncio.sleep(0)
        await world.store.cancel(task.id)
        async with asyncio.timeout(5):
            while not world.fleet.abandoned:
                await asyncio.sleep(0.001)


async def test_another_dispatcher_continues_from_the_stored_chunks() -> None:
    world = DispatchWorld(splitter=FakeSplitter(make_chunks(2), make_chunks(2, first=2, part=1)))
    task = await world.add(language="en")
    [claimed] = await world.store.claim("dead", timedelta(seconds=-1), 1, [0, 1, 2])
    lease = Lease(claimed.id, claimed.fence)
    await world.store.add_part(lease, 0, 0, make_chunks(2)[-1].spans[-1].end, make_chunks(2))
    await world.store.save_results(lease, [ChunkResult(0, 10.0, (), "en")])
    async with world.running("other"):
        ended = await world.end_of(task)
    assert ended.attempts == 2
    assert world.splitter.requests[0].first_part == 1
    assert world.splitter.requests[0].first_chunk == 2
    assert sorted(chunk.index for unit in world.fleet.units for chunk in unit.chunks) == [1, 2, 3]
    assert ended.result is not None
    assert ended.result.text == "chunk 1 chunk 2 chunk 3"


async def test_stopping_releases_tasks_without_counting_the_attempt() -> None:
    world = DispatchWorld()
    world.fleet.open_gate.clear()
    task = await world.add(language="en")
    async with world.running():
        while not world.fleet.units:
            await asyncio.sleep(0)
    left = await world.store.get(task.id)
    assert (left.status, left.attempts) == (Status.QUEUED, 0)
    world.fleet.open_gate.set()
    async with world.running("next"):
        assert (await world.end_of(task)).status is Status.COMPLETED


async def test_an_outage_of_the_database_delays_and_loses_nothing() -> None:
    world = DispatchWorld()
    world.fleet.open_gate.clear()
    task = await world.add(language="en")
    async with world.running() as dispatcher:
        while not world.fleet.units:
            await asyncio.sleep(0)
        world.store.available = False
        world.fleet.open_gate.set()
        while dispatcher.database_ready:
            await asyncio.sleep(0.001)
        world.store.available = True
        assert (await world.end_of(task)).status is Status.COMPLETED
        async with asyncio.timeout(5):
            while not dispatcher.database_ready:
                await asyncio.sleep(0.001)


async def test_an_unavailable_database_is_waited_for_at_the_start() -> None:
    world = DispatchWorld()
    world.store.available = False
    dispatcher = world.dispatcher()
    preparing = asyncio.create_task(dispatcher.prepare())
    await asyncio.sleep(0.02)
    assert not preparing.done()
    world.store.available = True
    await asyncio.wait_for(preparing, 5)
    assert dispatcher.database_ready


async def test_a_wait_ends_with_the_change() -> None:
    world = DispatchWorld()
    task = await world.add()
    async with world.running():
        async with asyncio.timeout(5):
            while not (await world.store.get(task.id)).status.finished:
                await world.notifier.watch_end(task.id, timeout_s=4)
        async with asyncio.timeout(1):
            await world.notifier.watch_end(task.id, timeout_s=60)
            assert await world.notifier.watch(task.id, seen=-1, timeout_s=60) > 1


async def test_two_dispatchers_do_each_task_once() -> None:
    world = DispatchWorld(splitter=FakeSplitter(make_chunks(1)))
    tasks = [await world.add(language="en") for _ in range(40)]
    async with world.running("one"), world.running("two"):
        ended = [await world.end_of(task) for task in tasks]
    assert {task.attempts for task in ended} == {1}
    assert len(world.fleet.units) == 40


async def test_urgent_tasks_are_claimed_although_lesser_ones_fill_the_dispatcher() -> None:
    world = DispatchWorld(settings=quick_settings(max_active_tasks=1), fleet=FakeTranscriber(max_batch_size=1))
    world.fleet.open_gate.clear()
    for _ in range(40):
        await world.add(Priority.LOW, language="en")
    async with world.running():
        while not world.fleet.units:
            await asyncio.sleep(0)
        urgent = await world.add(Priority.HIGH, language="en")
        async with asyncio.timeout(5):
            while urgent.id not in {unit.task_id for unit in world.fleet.units}:
                await asyncio.sleep(0.001)


async def test_a_client_s_task_is_claimed_at_once_although_another_s_fill_the_dispatcher() -> None:
    world = DispatchWorld(settings=quick_settings(max_active_tasks=24))
    world.fleet.open_gate.clear()
    for _ in range(60):
        await world.add(client="many", language="en")
    dispatcher = world.dispatcher()
    await dispatcher.prepare()
    await dispatcher._claim_all()
    ones = [await world.add(client="one", language="en") for _ in range(20)]
    another = await world.add(client="another", language="en")
    await dispatcher._claim_all()
    running = Counter(
        task.client
        for task in (await world.store.query(TaskQuery(limit=100))).tasks
        if task.status is Status.PROCESSING
    )
    await dispatcher._release_tasks()
    assert running == {"many": 24, "one": 12, "another": 1}
    assert (len(ones), another.status) == (20, Status.QUEUED)


async def test_without_clients_no_more_is_claimed_than_there_is_room_for() -> None:
    world = DispatchWorld(settings=quick_settings(max_active_tasks=24))
    world.fleet.open_gate.clear()
    for _ in range(60):
        await world.add(language="en")
    dispatcher = world.dispatcher()
    await dispatcher.prepare()
    await dispatcher._claim_all()
    await dispatcher._claim_all()
    running = [task for task in (await world.store.query(TaskQuery(limit=100))).tasks if task.owner]
    await dispatcher._release_tasks()
    assert len(running) == 24


# --- lost owners and outages of the database --------------------------------------------------------------------------


async def test_tasks_of_a_dead_predecessor_are_claimed_at_once() -> None:
    world = DispatchWorld(dead={"dead"})
    task = await world.add(language="en")
    await world.store.claim("dead", timedelta(hours=1), 1, [0, 1, 2])
    async with world.running():
        assert (await world.end_of(task)).attempts == 2


async def test_tasks_of_a_living_owner_are_left_to_it() -> None:
    world = DispatchWorld(dead={"dead"})
    task = await world.add(language="en")
    await world.store.claim("alive", timedelta(hours=1), 1, [0, 1, 2])
    async with world.running():
        await asyncio.sleep(0.05)
        assert (await world.store.get(task.id)).owner == "alive"


async def test_a_stale_attempt_ends_before_the_next_begins() -> None:
    world = DispatchWorld(settings=quick_settings(heartbeat_s=ENDLESS_S))
    world.fleet.open_gate.clear()
    task = await world.add(language="en")
    async with world.running() as dispatcher:
        while not world.fleet.units:
            await asyncio.sleep(0)
        await world.store.expire_leases_of(
            "one"
        )  # as if the lease had expired: the Dispatcher claims its own task again
        dispatcher.wake()
        while not world.fleet.abandoned:
            await asyncio.sleep(0.001)
        world.fleet.open_gate.set()
        ended = await world.end_of(task)
        assert (ended.status, ended.attempts, ended.fence) == (Status.COMPLETED, 2, 2)
        assert [unit.task_id for unit in world.fleet.units] == [task.id, task.id]


async def test_after_an_outage_a_dispatcher_keeps_its_leases() -> None:
    world = DispatchWorld()
    task = await world.add(language="en")
    dispatcher = world.dispatcher()
    await dispatcher.prepare()
    await dispatcher._claim_all()
    await world.store.expire_leases_of("one")  # the outage was longer than the lease
    dispatcher.database_ready = False
    await dispatcher._claim_all()
    kept = await world.store.get(task.id)
    await dispatcher._release_tasks()
    assert (kept.status, kept.attempts, kept.fence) == (Status.PROCESSING, 1, 1)


async def test_a_stalled_dispatcher_keeps_its_leases() -> None:
    world = DispatchWorld()
    task = await world.add(language="en")
    dispatcher = world.dispatcher()
    await dispatcher.prepare()
    await dispatcher._claim_all()
    world.clock.ahead_s = 2 * world.settings.dispatch.lease_duration_s  # its process stalled, and a claim comes first
    await dispatcher._claim_all()
    kept = await world.store.get(task.id)
    await dispatcher._release_tasks()
    assert (kept.status, kept.attempts, kept.fence) == (Status.PROCESSING, 1, 1)


async def test_the_end_of_an_attempt_is_no_lost_lease() -> None:
    world = DispatchWorld(splitter=FakeSplitter(make_chunks(1)), settings=quick_settings(heartbeat_s=0.0001))
    tasks = [await world.add(language="en") for _ in range(60)]
    async with world.running():
        for task in tasks:
            assert (await world.end_of(task)).attempts == 1
    assert world.metrics.total("lost_leases") == 0
    assert not await world.media.prefixes()


async def test_an_unconfirmed_commit_counts() -> None:
    world = DispatchWorld()
    world.store.unanswered = 1
    task = await world.add(language="en")
    async with world.running():
        assert (await world.end_of(task)).attempts == 1
        while await world.media.prefixes() or not world.finished:
            await asyncio.sleep(0.001)


async def test_a_failure_is_recorded_when_the_database_is_back() -> None:
    world = DispatchWorld(splitter=FakeSplitter(failure=MediaUndecodable("No decoder knows this.")))
    fail, refused = world.store.fail, 3

    async def moody(*arguments: object, **options: object) -> Task:
        nonlocal refused
        if refused:
            refused -= 1
            raise DatabaseUnavailable("Away.")
        return await fail(*arguments, **options)  # type: ignore[arg-type]

    world.store.fail = moody  # type: ignore[method-assign]
    task = await world.add()
    async with world.running():
        ended = await world.end_of(task)
    assert (ended.attempts, ended.error and ended.error.code) == (1, "media_undecodable")


async def test_a_file_that_kills_its_replicas_fails_alone() -> None:
    world = DispatchWorld(splitter=FakeSplitter(make_chunks(3)))
    innocents = [await world.add(language="en") for _ in range(4)]
    poison = await world.add(language="en")
    world.fleet.poison[poison.id, 1] = 1000
    async with world.running():
        failed = await world.end_of(poison)
        ended = [await world.end_of(task) for task in innocents]
    assert {task.status for task in ended} == {Status.COMPLETED}
    assert failed.error is not None
    assert (failed.error.code, failed.attempts) == ("attempts_exhausted", 1)
    assert "decoded the audio from 10.0 s to 20.0 s died 3 times" in failed.error.message
    assert world.fleet.poison[poison.id, 1] == 1000 - 3


# --- links ------------------------------------------------------------------------------------------------------------

LINK = "https://site.example/film.mp4"


def crawling(*sources: bytes | MurmurationError, **settings: object) -> tuple[DispatchWorld, FakeCrawler]:
    world = DispatchWorld(settings=quick_settings(**settings))
    crawler = FakeCrawler(world.media, {LINK: list(sources)})
    world.crawler = crawler
    return world, crawler


async def add_link(world: DispatchWorld, link: Link | None = None, **new: object) -> Task:
    task, _ = await world.store.create(NewTask(media_prefix="t9", file_url=LINK, link=link or Link(), **new))  # type: ignore[arg-type]
    return task


def crawl_record(title: str = "A talk") -> CrawlRecord:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    return CrawlRecord(platform="site", media_id="7", url=LINK, title=title, crawled_at=now, library="yt-dlp 1")


async def test_a_link_is_fetched_before_it_is_split() -> None:
    world, crawler = crawling(b"sound")
    crawler.records[LINK] = crawl_record()
    task = await add_link(world, Link(LinkKind.ANY))
    async with world.running():
        ended = await world.end_of(task)
    assert ended.status is Status.COMPLETED
    assert (ended.file_name, ended.file_size_bytes, ended.platform) == ("film.mp4", 5, "site")
    [request] = crawler.requests
    assert (request.url, request.link, request.media_key, request.fence) == (LINK, Link(LinkKind.ANY), "t9/source", 1)
    assert [split.media_key for split in world.splitter.requests] == ["t9/source"]
    assert await world.store.crawl_record(task.id) == crawl_record()
    assert world.media.keys == set()


async def test_the_crawl_record_is_kept_only_if_the_client_asked_for_it() -> None:
    world, crawler = crawling(b"sound")
    crawler.records[LINK] = crawl_record()
    task = await add_link(world, Link(LinkKind.ANY, keep_record=False), platform="mine")
    async with world.running():
        ended = await world.end_of(task)
    assert ended.platform == "mine"
    assert await world.store.crawl_record(task.id) is None


@pytest.mark.parametrize(
    "error",
    [
        PrivateOrRemoved("It is gone."),
        CookiesRequired("Log in."),
        LiveStream("It has not ended."),
        UnsupportedLink("Nothing reads this."),
        SourceTooLarge("It is too large."),
        UrlNotAllowed("Not there."),
    ],
)
async def test_a_final_error_of_a_site_is_not_retried(error: MurmurationError) -> None:
    world, crawler = crawling(error)
    task = await add_link(world)
    async with world.running():
        ended = await world.end_of(task)
    assert ended.error == TaskError(error.code, error.message)
    assert len(crawler.requests) == 1


async def test_an_unreachable_site_is_retried() -> None:
    world, crawler = crawling(SourceUnreachable("Nobody there."), ReplicaLost("It died."), b"sound")
    task = await add_link(world)
    async with world.running():
        assert (await world.end_of(task)).status is Status.COMPLETED
    assert len(crawler.requests) == 3


async def test_a_site_with_a_rate_limit_is_retried_after_its_retry_after() -> None:
    world, _ = crawling(RateLimited("Too often.", 3600.0))
    task = await add_link(world)
    async with world.running():
        waiting = await world.until(task, lambda task: task.error is not None)
    assert (waiting.status, waiting.error) == (Status.QUEUED, TaskError("rate_limited", "Too often."))
    assert waiting.available_at is not None
    assert waiting.available_at - world.clock.now() > timedelta(minutes=58)


async def test_a_task_fails_after_the_last_delay() -> None:
    world, crawler = crawling(RateLimited("Too often."))
    world.settings = world.settings.model_copy(update={"crawl": CrawlSettings(rate_limit_delays_s=(0.001, 0.001))})
    task = await add_link(world)
    async with world.running():
        assert (await world.end_of(task)).error == TaskError("rate_limited", "Too often.")
    assert len(crawler.requests) == 3


async def test_a_cancelled_task_stops_its_download() -> None:
    world, crawler = crawling(b"sound")
    crawler.open_gate.clear()
    task = await add_link(world)
    async with world.running() as dispatcher:
        await world.until(task, lambda task: bool(crawler.requests))
        await world.store.cancel(task.id)
        await dispatcher.cancel(task.id)
        assert crawler.abandoned == crawler.requests
    assert world.media.keys == set()


async def test_remains_of_a_lost_crawler_are_deleted_before_the_next_begins() -> None:
    world, _ = crawling(b"sound")
    await world.media.write("t9/source", blocks(b"half"))
    await world.media.write("t9/other", blocks(b"half"))
    task = await add_link(world)
    async with world.running():
        await world.end_of(task)
    assert world.media.keys == set()


async def test_concurrent_fetches_are_limited_by_the_settings() -> None:
    world, crawler = crawling(b"sound", max_concurrent_crawls=2)
    crawler.open_gate.clear()
    tasks = [await add_link(world) for _ in range(4)]
    async with world.running():
        await world.until(tasks[0], lambda task: len(crawler.requests) == 2)
        await asyncio.sleep(0.02)
        assert len(crawler.requests) == 2
        crawler.open_gate.set()
        for task in tasks:
            assert (await world.end_of(task)).status is Status.COMPLETED


async def test_without_a_crawler_a_link_fails_with_a_clear_message() -> None:
    world = DispatchWorld()
    task = await add_link(world)
    async with world.running():
        ended = await world.end_of(task)
    assert ended.error is not None
    assert ended.error.code == "invalid_value"


async def test_a_retried_link_is_fetched_again() -> None:
    world, crawler = crawling(PrivateOrRemoved("Gone."), b"sound")
    task = await add_link(world)
    async with world.running() as dispatcher:
        await world.end_of(task)
        await world.store.retry(task.id)
        dispatcher.wake()
        assert (await world.until(task, lambda task: task.status is Status.COMPLETED)).attempts == 1
    assert len(crawler.requests) == 2


async def test_slow_sites_do_not_keep_uploads_waiting() -> None:
    world, crawler = crawling(b"sound", max_active_tasks=1)
    world.fleet = FakeTranscriber(max_batch_size=1)
    crawler.open_gate.clear()
    links = [await add_link(world) for _ in range(20)]
    async with world.running():
        most = world.settings.crawl.max_per_host
        await world.until(links[0], lambda task: len(crawler.requests) == most < len(links))
        upload = await world.add()
        assert (await world.end_of(upload)).status is Status.COMPLETED


class BrokenStore(MoodyStore):
    """A store whose named methods raise unexpected errors until they are repaired."""

    broken: frozenset[str] = frozenset()

    def __getattribute__(self, name: str) -> object:
        if name != "broken" and name in self.broken:
            raise KeyError(7)
        return super().__getattribute__(name)


@pytest.mark.parametrize("method", ["claim", "fail_exhausted", "heartbeat"])
async def test_loops_continue_after_defects_and_report_them(method: str) -> None:
    world = DispatchWorld()
    world.store = BrokenStore(world.clock)
    async with world.running() as dispatcher:
        world.store.broken = frozenset({method})
        task = await world.add(language="en")
        dispatcher.wake()
        async with asyncio.timeout(5):
            while not dispatcher.failure_messages:
                await asyncio.sleep(0.001)
        assert all(sentence.endswith("fails: see the log.") for sentence in dispatcher.failure_messages)
        assert dispatcher.database_ready
        world.store.broken = frozenset()
        assert (await world.end_of(task)).status is Status.COMPLETED
        async with asyncio.timeout(5):
            while dispatcher.failure_messages:
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("method", ["migrate", "lease_owners"])
async def test_preparing_continues_after_defects_and_reports_them(method: str) -> None:
    world = DispatchWorld()
    world.store = BrokenStore(world.clock)
    world.store.broken = frozenset({method})
    dispatcher = world.dispatcher()
    preparing = asyncio.create_task(dispatcher.prepare())
    async with asyncio.timeout(5):
        while not dispatcher.failure_messages:
            await asyncio.sleep(0.001)
    assert not dispatcher.database_ready
    world.store.broken = frozenset()
    await asyncio.wait_for(preparing, 5)
    assert dispatcher.database_ready
    assert dispatcher.failure_messages == ()


async def test_sending_chunks_continues_after_defects_and_reports_them(monkeypatch: pytest.MonkeyPatch) -> None:
    world = DispatchWorld()
    async with world.running() as dispatcher:
        release = dispatcher._scheduler._queue.release
        monkeypatch.setattr(dispatcher._scheduler._queue, "release", raise_defect)
        task = await world.add(language="en")
        dispatcher.wake()
        async with asyncio.timeout(5):
            while not dispatcher.failure_messages:
                await asyncio.sleep(0.001)
        assert dispatcher.failure_messages == ("Sending chunks to replicas fails: see the log.",)
        monkeypatch.setattr(dispatcher._scheduler._queue, "release", release)
        assert (await world.end_of(task)).status is Status.COMPLETED
        assert dispatcher.failure_messages == ()
