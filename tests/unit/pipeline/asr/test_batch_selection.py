from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from pipeline.asr.batch_cost import CostModel
from pipeline.asr.batch_selection import MAX_WASTE_SHARE, select_batch


@dataclass(frozen=True, eq=False)
class WaitingChunk:
    frames: int = 1000
    rank: int = 1
    key: str = "beam 5"
    deferred_until: int = 0
    cost_factor: float = 1.0
    width: int = 5


CPU = CostModel(overhead_s=0.2, per_frame_s=0.0003)
GPU = CostModel(overhead_s=0.2, per_frame_s=0.000001)


def select(
    waiting: list[WaitingChunk], rows: int = 8, seconds: float = 100.0, cost: CostModel = CPU, number: int = 100
) -> list[WaitingChunk]:
    return select_batch(waiting, rows, seconds, cost, number)


def retry(rank: int = 1, key: str = "sample 0.2", until: int = 110) -> WaitingChunk:
    return WaitingChunk(rank=rank, key=key, deferred_until=until)


def test_the_first_in_line_is_always_served() -> None:
    odd = WaitingChunk(3000)
    assert select([odd, *(WaitingChunk() for _ in range(20))])[0] is odd


def test_a_deferred_chunk_lets_others_of_its_rank_go_first_until_its_deferral_ends() -> None:
    waiting = [retry(), WaitingChunk(), WaitingChunk(), retry()]
    assert select(waiting, number=109) == waiting[1:3]
    assert select(waiting, number=110) == [waiting[0], waiting[3]]


def test_a_deferred_chunk_does_not_wait_for_less_urgent_ones() -> None:
    waiting = [retry(rank=1), WaitingChunk(rank=2)]
    assert select(waiting) == waiting[:1]


def test_a_deferred_chunk_for_which_a_full_batch_waits_is_not_deferred_longer() -> None:
    waiting = [WaitingChunk(), retry(), WaitingChunk(), retry()]
    assert select(waiting, rows=2) == [waiting[0], waiting[2]]
    assert select(waiting[1:], rows=2) == [waiting[1], waiting[3]]


def test_where_all_are_deferred_the_one_whose_deferral_ends_first_goes_first() -> None:
    waiting = [retry(until=120), retry(key="full", until=110), retry(until=130)]
    assert select(waiting) == waiting[1:2]


def test_like_goes_with_like_and_older_before_younger() -> None:
    waiting = [WaitingChunk(1500), WaitingChunk(1000), WaitingChunk(1500), WaitingChunk(1400), WaitingChunk(1500)]
    assert select(waiting, rows=3) == [waiting[0], waiting[2], waiting[4]]


def test_a_batch_has_no_more_than_its_rows() -> None:
    assert len(select([WaitingChunk() for _ in range(20)], rows=8)) == 8


def test_only_equal_keys_share_a_batch() -> None:
    waiting = [WaitingChunk(), WaitingChunk(key="beam 1"), WaitingChunk()]
    assert select(waiting) == [waiting[0], waiting[2]]


def test_a_batch_stays_within_its_seconds() -> None:
    # 0.2 s, and 0.3 s a row: six rows take 2.0 s
    assert len(select([WaitingChunk() for _ in range(20)], seconds=2.05)) == 6


def test_a_chunk_that_takes_too_long_by_itself_is_decoded_alone() -> None:
    assert len(select([WaitingChunk(3000), WaitingChunk(3000)], seconds=0.5)) == 1


def test_a_batch_of_expensive_chunks_is_smaller() -> None:
    # four times 0.2 s, and four times 0.3 s a row
    assert len(select([WaitingChunk(cost_factor=4.0) for _ in range(20)], seconds=5.0)) == 3
    assert len(select([WaitingChunk(cost_factor=40.0) for _ in range(20)], seconds=5.0)) == 1


def test_a_wide_search_gets_fewer_rows() -> None:
    rows = [
        len(select([WaitingChunk(width=width) for _ in range(20)], seconds=100.0, rows=8))
        for width in (1, 5, 10, 20, 99)
    ]
    assert rows == [8, 8, 4, 2, 1]


def test_lengths_mix_only_where_waste_is_cheaper_than_another_batch() -> None:
    long_and_short = [WaitingChunk(3000), WaitingChunk(1000)]
    assert len(select(long_and_short, cost=CPU)) == 1
    assert len(select(long_and_short, cost=GPU)) == 2


def test_further_chunks_do_not_delay_an_urgent_chunk() -> None:
    urgent, *others = waiting = [WaitingChunk(rank=0), *(WaitingChunk(rank=2) for _ in range(10))]
    assert select(waiting, cost=CPU) == [urgent]
    assert select(waiting, cost=GPU) == [urgent, *others[:7]]


def test_urgent_chunks_go_before_less_urgent_ones_of_the_same_length() -> None:
    waiting = [WaitingChunk(rank=0), WaitingChunk(rank=0, frames=1100), WaitingChunk(rank=1)]
    assert select(waiting, rows=2, cost=GPU) == waiting[:2]


@given(
    st.lists(
        st.builds(
            WaitingChunk,
            frames=st.sampled_from(range(1000, 3001, 100)),
            rank=st.integers(0, 2),
            key=st.sampled_from(["beam 5", "beam 1"]),
            deferred_until=st.sampled_from([0, 110, 120]),
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 16),
    st.floats(0.01, 5),
)
def test_every_batch_keeps_every_rule(waiting: list[WaitingChunk], rows: int, seconds: float) -> None:
    waiting.sort(key=lambda one: one.rank)
    batch = select(waiting, rows, seconds)
    assert batch[0].rank == waiting[0].rank
    assert batch[0] is waiting[0] or waiting[0].deferred_until > 100
    assert 1 <= len(batch) <= rows
    assert len(set(map(id, batch))) == len(batch)
    assert {one.key for one in batch} == {batch[0].key}
    assert len(batch) == 1 or CPU.predict(len(batch), max(one.frames for one in batch)) <= seconds
    # what it costs is hardly more than decoding each chunk alone
    alone = sum(CPU.predict(1, one.frames) for one in batch)
    assert CPU.predict(len(batch), max(one.frames for one in batch)) <= alone * (1 + MAX_WASTE_SHARE) ** len(batch)
