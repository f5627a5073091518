from __future__ import annotations

from collections.abc import Iterator

from deployments.handles import POLICY_GRACE_S, TranscriberHandle
from pipeline.ports import EngineInfo


class ScriptedHandle(TranscriberHandle):
    """A fleet with a given sequence of replica states."""

    def __init__(self, *states: dict[str, int], policy_grace_s: float = POLICY_GRACE_S) -> None:
        super().__init__(handle=None, policy_grace_s=policy_grace_s, poll_s=0.0)
        self._shown: Iterator[dict[str, int]] = iter(states)
        self.polls = 0

    async def _states(self) -> dict[str, int]:
        self.polls += 1
        return next(self._shown)


class Replicas:
    """A handle to replicas that counts the requests for their description."""

    def __init__(self) -> None:
        self.requests = 0
        self.describe = self

    async def remote(self) -> EngineInfo:
        self.requests += 1
        return EngineInfo("fake", "fake", "cpu", "int8", ("en",), 8)


async def test_only_running_replicas_can_take_work() -> None:
    assert await ScriptedHandle({"RUNNING": 2, "STARTING": 3}).replica_count() == 2
    assert await ScriptedHandle({}).replica_count() == 0


async def test_a_call_to_a_fleet_at_zero_waits_for_the_policy_to_ask_for_replicas() -> None:
    fleet = ScriptedHandle({}, {}, {"STARTING": 6})
    await fleet.replica_count()
    await fleet._wait_for_policy()
    assert fleet.polls == 3


async def test_the_calls_that_follow_do_not_wait_again() -> None:
    fleet = ScriptedHandle({}, {"STARTING": 6})
    await fleet.replica_count()
    await fleet._wait_for_policy()
    await fleet._wait_for_policy()
    assert fleet.polls == 2


async def test_a_policy_that_asks_for_nobody_is_not_waited_for_long() -> None:
    fleet = ScriptedHandle({}, policy_grace_s=0.0)
    await fleet.replica_count()
    await fleet._wait_for_policy()
    assert fleet.polls == 1


async def test_replicas_that_start_are_no_fleet_at_zero() -> None:
    fleet = ScriptedHandle({"STARTING": 1})
    assert await fleet.replica_count() == 0
    assert not fleet._at_zero


async def test_an_idle_fleet_gets_no_request_for_its_description() -> None:
    replicas = Replicas()
    fleet = TranscriberHandle(replicas, description_ttl_s=0.0)
    for _ in range(3):
        assert (await fleet.describe()).engine == "fake"
    assert replicas.requests == 1

    fleet._used = True
    for _ in range(3):
        await fleet.describe()
    assert replicas.requests == 2
