from __future__ import annotations

from pipeline.domain.scheduling.claim_room import claim_room, extra_room


def test_each_rank_has_a_limit_of_its_own() -> None:
    assert claim_room({}, 4, fetching=(), waiting=()) == {0: 4, 1: 4, 2: 4}
    assert claim_room({1: 0, 2: 0, 3: 2}, 4, fetching=(), waiting=()) == {0: 2, 1: 4, 2: 3}


def test_tasks_whose_recording_is_fetched_do_not_count() -> None:
    ranks = dict.fromkeys(range(6), 1)
    assert claim_room(ranks, 4, fetching={0, 1, 2}, waiting=())[1] == 1
    assert claim_room(ranks, 4, fetching=set(ranks), waiting=set(ranks))[1] == 4


def test_as_many_tasks_as_the_limit_may_wait_for_a_splitter_besides() -> None:
    ranks = dict.fromkeys(range(10), 1)
    assert claim_room(ranks, 4, fetching=(), waiting=range(3))[1] == -3
    assert claim_room(ranks, 4, fetching=(), waiting=range(8))[1] == -2


def test_ranks_without_room_have_as_much_again_for_other_clients() -> None:
    assert extra_room({0: 0, 1: -3, 2: 1}, 4) == {0: 4, 1: 1}
