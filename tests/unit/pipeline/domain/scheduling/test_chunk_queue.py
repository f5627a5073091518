from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.scheduling.capacity import Capacity, ReleasedChunks
from pipeline.domain.scheduling.chunk_queue import ChunkQueue
from pipeline.testing.fake_splitter import make_chunks

HIGH, NORMAL, LOW = range(3)
WIDE = Capacity(replicas=4, max_batch_size=8)


def queue(**files: tuple[int, int]) -> ChunkQueue:
    """``task_1=(rank, number of chunks)`` …"""
    made = ChunkQueue(ageing_s=600)
    for name, (rank, number) in files.items():
        task_id = int(name.removeprefix("task_"))
        made.open(task_id, rank, now=0)
        made.add(task_id, make_chunks(number), now=0)
    return made


def drain(made: ChunkQueue, capacity: Capacity, now: float = 0) -> list[ReleasedChunks]:
    """Release one unit after another, each finished before the next."""
    released = []
    while unit := made.release(capacity, now):
        made.finish(unit.task_id, len(unit.chunks))
        released.append(unit)
    return released


def test_an_empty_queue_releases_nothing() -> None:
    assert ChunkQueue(600).release(WIDE, now=0) is None


def test_urgent_tasks_go_first() -> None:
    made = queue(task_1=(LOW, 4), task_2=(NORMAL, 4), task_3=(HIGH, 4))
    order = [unit.task_id for unit in drain(made, Capacity(1, 4))]
    assert order == [3, 2, 1]


def test_a_clip_does_not_wait_behind_a_long_file_of_its_priority() -> None:
    made = queue(task_1=(NORMAL, 1000))
    for _ in range(50):
        unit = made.release(Capacity(1, 8), now=0)
        assert unit
        made.finish(1, len(unit.chunks))
    made.open(2, NORMAL, now=0)
    made.add(2, make_chunks(1), now=0)
    following = made.release(Capacity(1, 8), now=0)
    assert following is not None
    assert following.task_id == 2


def test_tasks_of_one_priority_share_audio_seconds_fairly() -> None:
    made = ChunkQueue(600)
    made.open(1, NORMAL, 0)
    made.add(1, make_chunks(400, seconds=30), 0)
    made.open(2, NORMAL, 0)
    made.add(2, make_chunks(400, seconds=5), 0)
    served = {1: 0.0, 2: 0.0}
    for _ in range(60):
        unit = made.release(Capacity(1, 4), now=0)
        assert unit
        served[unit.task_id] += sum(chunk.duration_s for chunk in unit.chunks)
        made.finish(unit.task_id, len(unit.chunks))
    assert abs(served[1] - served[2]) <= 2 * 4 * 30


def test_an_urgent_chunk_goes_out_although_lesser_ones_fill_the_replicas() -> None:
    made = queue(task_1=(LOW, 100))
    capacity = Capacity(1, 4)
    while made.release(capacity, now=0):
        pass
    made.open(2, HIGH, 0)
    made.add(2, make_chunks(3), 0)
    unit = made.release(capacity, now=0)
    assert unit is not None
    assert (unit.task_id, len(unit.chunks)) == (2, 3)


def test_lesser_chunks_wait_while_urgent_ones_fill_the_replicas() -> None:
    made = queue(task_1=(HIGH, 100), task_2=(LOW, 1))
    while made.release(Capacity(1, 4), now=0):
        pass
    assert made.release(Capacity(1, 4), now=0) is None


def test_a_task_that_is_passed_over_for_long_is_lifted() -> None:
    made = queue(task_1=(LOW, 4), task_2=(NORMAL, 1000))
    early = made.release(Capacity(1, 4), now=0)
    assert early
    assert early.task_id == 2
    made.finish(2, len(early.chunks))
    late = made.release(Capacity(1, 4), now=601)
    assert late
    assert late.task_id == 2  # raised to the same rank, and both have waited
    made.finish(2, len(late.chunks))
    later = made.release(Capacity(1, 4), now=602)
    assert later
    assert later.task_id == 1


def test_no_more_goes_out_than_the_replicas_hold() -> None:
    made = queue(task_1=(NORMAL, 1000))
    out = 0
    while unit := made.release(Capacity(3, 8), now=0):
        out += len(unit.chunks)
    assert out == 3 * 8 * 3


def test_at_the_end_chunks_wait_for_whoever_is_done_first() -> None:
    made = queue(task_1=(NORMAL, 3 * 8 * 3))
    out = 0
    while unit := made.release(Capacity(3, 8), now=0):
        out += len(unit.chunks)
    assert (out, made.waiting_chunks) == (3 * 8 * 2, 3 * 8)
    made.finish(1, 5)
    again = made.release(Capacity(3, 8), now=0)
    assert again
    assert len(again.chunks) == 5


def test_a_fleet_scaled_to_zero_is_woken_by_the_first_unit() -> None:
    assert queue(task_1=(NORMAL, 1)).release(Capacity(0, 8), now=0) is not None


def test_the_end_of_a_file_is_spread_over_all_replicas() -> None:
    sizes = [len(unit.chunks) for unit in drain(queue(task_1=(NORMAL, 8)), WIDE)]
    assert sizes[0] == 2
    assert sum(sizes) == 8


@pytest.mark.parametrize("limit", [1, 3])
def test_a_task_with_a_limit_has_that_many_chunks_out(limit: int) -> None:
    made = ChunkQueue(600)
    made.open(1, NORMAL, 0, max_in_flight=limit)
    made.add(1, make_chunks(10), 0)
    out = 0
    while unit := made.release(WIDE, now=0):
        out += len(unit.chunks)
    assert out == limit
    made.finish(1)
    following = made.release(WIDE, now=0)
    assert following
    assert len(following.chunks) == 1
    made.limit(1, None)
    assert made.release(WIDE, now=0) is not None


def test_lost_chunks_come_back_to_the_front_in_order() -> None:
    made = queue(task_1=(NORMAL, 6))
    first = made.release(Capacity(1, 3), now=0)
    assert first
    made.put_back(1, reversed(first.chunks))
    again = made.release(Capacity(1, 3), now=0)
    assert again
    assert again.chunks == first.chunks


def test_a_paused_task_keeps_its_chunks() -> None:
    made = queue(task_1=(NORMAL, 1))
    made.pause(1, paused=True)
    assert made.release(WIDE, now=0) is None
    made.pause(1, paused=False)
    assert made.release(WIDE, now=0) is not None


def test_a_closed_task_is_forgotten_and_its_late_results_are_fine() -> None:
    made = queue(task_1=(NORMAL, 9))
    unit = made.release(WIDE, now=0)
    assert unit
    made.close(1)
    made.finish(1, len(unit.chunks))
    made.put_back(1, unit.chunks)
    made.pause(1, paused=True)
    assert made.waiting_chunks == 0
    assert made.release(WIDE, now=0) is None


@given(
    files=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 40)), min_size=1, max_size=12),
    replicas=st.integers(0, 8),
    batch=st.integers(1, 16),
)
def test_every_chunk_is_released_once_and_in_the_order_of_its_file(
    files: list[tuple[int, int]], replicas: int, batch: int
) -> None:
    made = queue(**{f"task_{number}": file for number, file in enumerate(files)})
    seen: dict[int, list[int]] = {}
    clock = count()
    while unit := made.release(Capacity(replicas, batch), now=next(clock)):
        assert 1 <= len(unit.chunks) <= batch
        seen.setdefault(unit.task_id, []).extend(chunk.index for chunk in unit.chunks)
        made.finish(unit.task_id, len(unit.chunks))
    assert seen == {number: list(range(total)) for number, (_, total) in enumerate(files)}


def test_what_arrives_is_tagged_before_the_waiting_chunks_of_a_long_file() -> None:
    made = queue(task_1=(NORMAL, 1000))
    out = [made.release(Capacity(1, 4), now=0), made.release(Capacity(1, 4), now=0)]
    made.finish(1, 3)
    made.open(2, NORMAL, now=0)
    made.add(2, make_chunks(1), now=0)
    clip = made.release(Capacity(1, 4), now=0)
    assert clip is not None
    assert clip.task_id == 2
    tags = [unit.start_tag for unit in out if unit]
    assert tags[0] == clip.start_tag < tags[1]


def test_ageing_keeps_an_endless_stream_of_clips_from_starving_a_long_file() -> None:
    made = queue(task_1=(NORMAL, 50))
    served = 0
    for clip in range(2, 300):
        made.open(clip, NORMAL, now=10 * clip)
        made.add(clip, make_chunks(1), now=10 * clip)
        unit = made.release(Capacity(1, 1, batches_in_flight=1), now=10 * clip)
        assert unit
        served += unit.task_id == 1
        made.finish(unit.task_id, len(unit.chunks))
    assert served == 5  # once in 600 s
