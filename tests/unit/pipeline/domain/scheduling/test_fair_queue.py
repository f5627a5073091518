from __future__ import annotations

from collections import Counter

import pytest

from pipeline.domain.scheduling.fair_queue import MAX_IDLE, FairQueue, QueuePosition, SlotLimits, TurnRequest, share_key

AGEING_S = 600.0


def queue_of(slots: int = 1, **limits: object) -> FairQueue:
    return FairQueue(SlotLimits(slots, **limits), AGEING_S)  # type: ignore[arg-type]


def served(fair: FairQueue, turns: int, cost: float = 1.0, now: float = 0.0) -> list[str]:
    """Return the clients of the next turns, one turn after another; each client joins the queue again at once."""
    clients = []
    for _ in range(turns):
        position = fair.next(now)
        assert position is not None
        fair.charge(position, cost)
        fair.finish(position)
        clients.append(position.request.client)
        fair.join(position.request, now)
    return clients


def begun(fair: FairQueue, now: float = 0.0) -> list[QueuePosition]:
    """Start all turns that can begin."""
    places = []
    while position := fair.next(now):
        places.append(position)
    return places


def test_nobody_waits_while_there_is_room() -> None:
    fair = queue_of(2)
    for client in ("a", "b", "c"):
        fair.join(TurnRequest(client), 0.0)
    assert [position.request.client for position in begun(fair)] == ["a", "b"]
    assert (fair.taken, fair.waiting) == (2, 1)


def test_the_more_urgent_goes_first_whoever_has_had_least() -> None:
    fair = queue_of()
    fair.join(TurnRequest("a", priority_rank=1), 0.0)
    fair.join(TurnRequest("b", priority_rank=0), 0.0)
    assert served(fair, 3) == ["b", "b", "b"]


def test_clients_share_evenly_however_much_each_asks_for() -> None:
    fair = queue_of()
    for _ in range(10):
        fair.join(TurnRequest("many"), 0.0)
    fair.join(TurnRequest("one"), 0.0)
    assert Counter(served(fair, 20)) == {"many": 10, "one": 10}


def test_turns_count_by_what_they_cost() -> None:
    fair = queue_of()
    for client in ("dear", "cheap"):
        fair.join(TurnRequest(client), 0.0)
    turns = Counter[str]()
    for _ in range(40):
        position = fair.next(0.0)
        assert position is not None
        fair.charge(position, 3.0 if position.request.client == "dear" else 1.0)
        fair.finish(position)
        turns[position.request.client] += 1
        fair.join(position.request, 0.0)
    assert turns == {"dear": 10, "cheap": 30}


def test_a_client_that_arrives_neither_catches_up_nor_waits() -> None:
    fair = queue_of()
    fair.join(TurnRequest("early"), 0.0)
    served(fair, 1000)
    fair.join(TurnRequest("late"), 0.0)
    assert Counter(served(fair, 20)) == {"early": 10, "late": 10}


def test_a_client_that_was_passed_over_at_its_priority_does_not_hold_newcomers_of_another_back() -> None:
    fair = queue_of()
    fair.join(TurnRequest("patient", priority_rank=2), 0.0)
    fair.join(TurnRequest("busy"), 0.0)
    served(fair, 1000)
    fair.join(TurnRequest("new"), 0.0)
    assert Counter(served(fair, 20)) == {"busy": 10, "new": 10}


def test_of_one_clients_own_the_shortest_goes_first() -> None:
    fair = queue_of()
    for size in (30.0, 10.0, 20.0):
        fair.join(TurnRequest("a", size=size), 0.0)
    assert [fair.next(0.0), fair.next(0.0)][1] is None
    fair = queue_of(3)
    for size in (30.0, 10.0, 20.0):
        fair.join(TurnRequest("a", size=size), 0.0)
    assert [position.request.size for position in begun(fair)] == [10.0, 20.0, 30.0]


def test_who_has_fewest_slots_gets_the_next() -> None:
    fair = queue_of(4)
    for _ in range(10):
        fair.join(TurnRequest("many", cost=1.0), 0.0)
    held = begun(fair)
    fair.join(TurnRequest("few", cost=1.0), 0.0)
    fair.finish(held[0])
    position = fair.next(0.0)
    assert position is not None
    assert position.request.client == "few"


@pytest.mark.parametrize(("now", "first"), [(AGEING_S, "high"), (3 * AGEING_S, "low")])
def test_whoever_waits_long_is_lifted_until_its_turn_comes(now: float, first: str) -> None:
    fair = queue_of()
    fair.join(TurnRequest("low", priority_rank=2), 0.0)
    fair.join(TurnRequest("high", priority_rank=0), now)
    assert served(fair, 1, now=now) == [first]


def test_a_host_has_its_share_and_no_more() -> None:
    fair = queue_of(4, max_per_host=2)
    for _ in range(5):
        fair.join(TurnRequest("a", host="drips.example"), 0.0)
    fair.join(TurnRequest("a", host="other.example"), 0.0)
    hosts = [position.request.host for position in begun(fair)]
    assert hosts == ["drips.example", "drips.example", "other.example"]


@pytest.mark.parametrize("slots", [2, 3, 8, 16, 64])
def test_one_client_leaves_half_to_those_who_come(slots: int) -> None:
    fair = queue_of(slots, reserve=True)
    for _ in range(2 * slots):
        fair.join(TurnRequest("a", priority_rank=0), 0.0)
    assert len(begun(fair)) == slots - slots // 2
    for number in range(slots // 2):
        fair.join(TurnRequest(f"newcomer {number}", priority_rank=0), 0.0)
    assert len(begun(fair)) == slots // 2


def test_a_client_has_room_for_what_is_more_urgent_than_what_it_does() -> None:
    fair = queue_of(16, reserve=True)
    for _ in range(20):
        fair.join(TurnRequest("a", priority_rank=1), 0.0)
    assert len(begun(fair)) == 8
    fair.join(TurnRequest("a", priority_rank=0), 0.0)
    assert [position.request.priority_rank for position in begun(fair)] == [0]


@pytest.mark.parametrize(("rank", "taken"), [(0, 16), (1, 14), (2, 12)])
def test_the_less_urgent_leave_room_for_the_more_urgent(rank: int, taken: int) -> None:
    fair = queue_of(16, reserve=True)
    for number in range(20):
        fair.join(TurnRequest(f"task {number}", priority_rank=rank), 0.0)
    assert len(begun(fair)) == taken


def test_what_is_kept_for_the_urgent_is_given_to_who_waited_long() -> None:
    fair = queue_of(16, reserve=True)
    for number in range(20):
        fair.join(TurnRequest(f"task {number}", priority_rank=1), 0.0)
    begun(fair)
    assert len(begun(fair, now=AGEING_S)) == 2


def test_a_single_slot_is_nobodys_reserve() -> None:
    fair = queue_of(1, reserve=True)
    fair.join(TurnRequest("a", priority_rank=2), 0.0)
    assert len(begun(fair)) == 1


def test_who_leaves_the_line_is_not_called() -> None:
    fair = queue_of()
    gone, stays = fair.join(TurnRequest("a"), 0.0), fair.join(TurnRequest("b"), 0.0)
    fair.leave(gone)
    assert fair.next(0.0) is stays


def test_clients_that_are_gone_are_forgotten() -> None:
    fair = queue_of(2)
    fair.join(TurnRequest("stays"), 0.0)
    held = fair.next(0.0)
    assert held is not None
    for number in range(3 * MAX_IDLE):
        fair.join(TurnRequest(f"task {number}"), 0.0)
        position = fair.next(0.0)
        assert position is not None
        fair.charge(held, 2.0)
        fair.charge(position, 1.0)
        fair.finish(position)
    assert len(fair._flows) <= MAX_IDLE + 2
    fair.finish(held)
    assert not fair._flows


def test_a_task_of_nobody_in_particular_shares_under_its_own_name() -> None:
    assert share_key(7, None) != share_key(8, None)
    assert share_key(7, "team") == share_key(8, "team")
    assert share_key(7, "task 7") != share_key(7, None)


def test_slots_that_no_newcomer_needs_are_not_kept_from_those_that_are_there() -> None:
    fair = queue_of(8, reserve=True)
    for _ in range(4):
        for client in "abcde":
            fair.join(TurnRequest(client, priority_rank=0), 0.0)
    assert Counter(position.request.client for position in begun(fair)) == {"a": 2, "b": 2, "c": 2, "d": 1, "e": 1}


def test_a_turn_is_wanted_by_whoever_would_have_it_next() -> None:
    fair = queue_of()
    fair.join(TurnRequest("a", size=10.0), 0.0)
    position = fair.next(0.0)
    assert position is not None
    assert not fair.should_yield(position, 10.0, 0.0)
    fair.join(TurnRequest("a", size=20.0), 0.0)
    assert not fair.should_yield(position, 10.0, 0.0)
    assert fair.should_yield(position, 30.0, 0.0)
    fair.join(TurnRequest("b", priority_rank=2), 0.0)
    assert not fair.should_yield(position, 10.0, 0.0)
    fair.join(TurnRequest("b", priority_rank=0), 0.0)
    assert fair.should_yield(position, 10.0, 0.0)
    assert fair.taken == 1
    fair.finish(position)
    assert fair.taken == 0
