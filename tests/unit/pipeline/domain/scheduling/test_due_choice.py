from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.scheduling.due_choice import DueWork, choose_fairly

AGEING_S = 600.0


def due(*clients: str, rank: int = 1, since: float = 0.0, first: int = 1) -> list[DueWork]:
    return [DueWork(number, client, rank, since) for number, client in enumerate(clients, first)]


def test_work_is_chosen_client_by_client() -> None:
    assert choose_fairly(due("a", "a", "a", "b", "c"), (), 5, 0.0, AGEING_S) == [1, 4, 5, 2, 3]


def test_one_client_fills_half_of_what_can_be_taken() -> None:
    assert choose_fairly(due(*"aaaaaaaa"), (), 8, 0.0, AGEING_S) == [1, 2, 3, 4]


def test_what_is_in_hand_counts() -> None:
    held = due("a", "a", first=100)
    assert choose_fairly(due("a", "a", "b"), held, 2, 0.0, AGEING_S) == [3]


def test_of_one_client_the_longest_due_is_chosen_first() -> None:
    waiting = [DueWork(1, "a", 1, 30.0), DueWork(2, "a", 1, 10.0), DueWork(3, "a", 1, 20.0)]
    assert choose_fairly(waiting, (), 6, 40.0, AGEING_S) == [2, 3, 1]


def test_the_most_urgent_is_chosen_first_until_others_have_waited_long() -> None:
    waiting = [*due("a", rank=2), *due("b", rank=0, first=2)]
    assert choose_fairly(waiting, (), 2, 0.0, AGEING_S) == [2, 1]
    later = [*due("a", rank=2), *due("b", rank=0, first=2, since=4 * AGEING_S)]
    assert choose_fairly(later, (), 2, 4 * AGEING_S, AGEING_S) == [1, 2]


def test_an_urgent_wish_of_a_busy_client_finds_room() -> None:
    held = due(*"aaaa", first=100)
    assert choose_fairly([*due("a"), *due("a", rank=0, first=2)], held, 4, 0.0, AGEING_S) == [2]


@pytest.mark.parametrize("limit", [0, -1])
def test_nothing_is_chosen_where_there_is_no_room(limit: int) -> None:
    assert choose_fairly(due("a"), (), limit, 0.0, AGEING_S) == []


def test_nobodys_work_fills_what_can_be_taken() -> None:
    assert len(choose_fairly(due(*(f"task {number}" for number in range(20)), rank=0), (), 8, 0.0, AGEING_S)) == 8


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2), st.floats(0, 2000)), max_size=40),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), max_size=8),
    st.integers(0, 10),
)
def test_no_more_is_chosen_than_there_is_room_for_and_nothing_twice(
    waiting: list[tuple[str, int, float]], held: list[tuple[str, int]], limit: int
) -> None:
    rows = [DueWork(number, *each) for number, each in enumerate(waiting)]
    chosen = choose_fairly(rows, [DueWork(-1, client, rank, 0.0) for client, rank in held], limit, 2000.0, AGEING_S)
    assert len(chosen) == len(set(chosen)) <= limit
    if limit and rows and not held:
        assert chosen
