from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.scheduling.claim_rule import NO_RUNNING_TASKS, ClaimCandidate, ClaimRule, RunningTasks, known_order
from pipeline.domain.tasks.lifecycle import claim_order

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NORMAL = 1


def rule(running_tasks: RunningTasks = NO_RUNNING_TASKS) -> ClaimRule:
    return ClaimRule(running_tasks, NOW, ageing_s=600.0)


def candidate(number: int, client: str | None = None, rank: int = NORMAL, age_s: float = 0.0) -> ClaimCandidate:
    return ClaimCandidate(number, rank, client, NOW - timedelta(seconds=age_s))


def order(candidates: list[ClaimCandidate], running_tasks: RunningTasks = NO_RUNNING_TASKS) -> list[int]:
    return [one.id for _, one in rule(running_tasks).places(candidates)]


def test_clients_take_turns() -> None:
    many = [candidate(number, "many") for number in range(4)]
    assert order([*many, candidate(10, "one"), candidate(11, "two"), candidate(12, "two")]) == [0, 10, 11, 1, 12, 2, 3]


def test_what_runs_of_a_client_counts() -> None:
    running_tasks = RunningTasks({(NORMAL, "a"): 2, (NORMAL, "b"): 1})
    candidates = [candidate(1, "a"), candidate(2, "b"), candidate(3, "b"), candidate(4, "c"), candidate(5)]
    assert order(candidates, running_tasks) == [4, 5, 2, 1, 3]


def test_an_older_rank_goes_first_whoever_has_more_running() -> None:
    running_tasks = RunningTasks({(2, "a"): 50})
    assert order([candidate(1, "b"), candidate(2, "a", rank=2, age_s=1_300)], running_tasks) == [2, 1]


def test_where_the_limit_is_divided_nobody_gets_more_than_a_share() -> None:
    running_tasks = RunningTasks({(NORMAL, "a"): 64}, limit=64)
    waiting = [candidate(number, "a") for number in range(100)] + [candidate(100 + n, "b") for n in range(100)]
    assert order(waiting, running_tasks) == list(range(100, 132))
    assert order(waiting, RunningTasks({(NORMAL, "a"): 64, (NORMAL, "b"): 32}, limit=64)) == []
    assert order(waiting[:100], RunningTasks({(NORMAL, "a"): 64}, limit=64)) == []


def test_a_share_is_one_task_at_least() -> None:
    running_tasks = RunningTasks({(NORMAL, f"client {number}"): 1 for number in range(200)}, limit=64)
    assert order([candidate(1, "new"), candidate(2, "new")], running_tasks) == [1]


CANDIDATES = st.lists(
    st.tuples(st.sampled_from([None, "a", "b", "c"]), st.integers(0, 2), st.integers(0, 2_000)), max_size=40
)
HELD = st.dictionaries(
    st.tuples(st.integers(0, 2), st.sampled_from([None, "a", "b", "c"])), st.integers(0, 5), max_size=6
)


def numbered(candidates: list[tuple[str | None, int, int]]) -> list[ClaimCandidate]:
    return [candidate(number, client, rank, age_s) for number, (client, rank, age_s) in enumerate(candidates)]


@given(CANDIDATES, st.integers(0, 9))
def test_where_there_is_one_client_the_order_is_that_of_age(
    candidates: list[tuple[str | None, int, int]], held: int
) -> None:
    mine = [one._replace(client=None) for one in numbered(candidates)]
    by_age = sorted(mine, key=lambda one: claim_order(one.id, one.rank, one.created_at, NOW, 600.0))
    assert order(mine, RunningTasks({(NORMAL, None): held})) == [one.id for one in by_age]


@given(CANDIDATES, HELD, st.none() | st.integers(1, 10), st.integers(1, 5), st.integers(0, 4))
def test_of_few_candidates_that_were_looked_up_the_order_is_that_of_all(
    candidates: list[tuple[str | None, int, int]],
    held: dict[tuple[int, str | None], int],
    limit: int | None,
    depth: int,
    groups: int,
) -> None:
    """The known order is a prefix of the whole one, and not empty if there is any candidate."""
    everything = sorted(numbered(candidates), key=lambda one: (one.rank, one.client or "", one.created_at, one.id))
    whole = {key: list(group) for key, group in groupby(everything, key=lambda one: (one.rank, one.client))}
    chosen, running_tasks = rule(RunningTasks(held, limit)), RunningTasks(held, limit)
    heads = [group[0] for group in whole.values()]
    picked = [(one.rank, one.client) for _, one in chosen.places(heads)[:groups]]
    found = known_order(chosen, heads, {key: whole[key][:depth] for key in picked}, depth)
    expected = order(everything, running_tasks)
    assert found == expected[: len(found)]
    assert bool(found) == bool(expected)


@given(CANDIDATES, HELD, st.integers(1, 10))
def test_nobody_is_given_more_than_a_share(
    candidates: list[tuple[str | None, int, int]], held: dict[tuple[int, str | None], int], limit: int
) -> None:
    running_tasks = RunningTasks(held, limit)
    given = Counter(held)
    waiting = numbered(candidates)
    for number in order(waiting, running_tasks):
        given[waiting[number].rank, waiting[number].client] += 1
        key = waiting[number].rank, waiting[number].client
        assert given[key] <= running_tasks.share(*key)
