from datetime import UTC, datetime, timedelta

import pytest

from pipeline.domain.tasks.client import (
    DAY,
    QUEUE_RETRY_S,
    Client,
    ClientLoad,
    Scope,
    refuse_more_audio,
    refuse_over_quota,
)
from pipeline.errors import QuotaExceeded

NOW = datetime(2025, 1, 2, tzinfo=UTC)


def client(*scopes: Scope, queued: int | None = None, audio_s: float | None = None) -> Client:
    return Client("ann", frozenset(scopes), queued, audio_s)


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ((Scope.READ,), {Scope.READ}),
        ((Scope.WRITE,), {Scope.WRITE}),
        ((Scope.READ, Scope.WRITE), {Scope.READ, Scope.WRITE}),
        ((Scope.ADMIN,), {Scope.READ, Scope.WRITE, Scope.ADMIN}),
    ],
)
def test_a_key_opens_its_scopes_and_admin_opens_all(scopes: tuple[Scope, ...], allowed: set[Scope]) -> None:
    assert {scope for scope in Scope if client(*scopes).may(scope)} == allowed


def test_only_an_admin_sees_everybodys_tasks() -> None:
    assert [scope for scope in Scope if client(scope).sees_all_tasks] == [Scope.ADMIN]


def test_without_limits_nothing_is_refused() -> None:
    assert not client().limited
    refuse_over_quota(client(), ClientLoad(10_000, 1e9, NOW), NOW)


@pytest.mark.parametrize(("queued", "refused"), [(0, False), (2, False), (3, True), (4, True)])
def test_queued_tasks_are_limited(queued: int, refused: bool) -> None:
    limited = client(queued=3)
    if not refused:
        refuse_over_quota(limited, ClientLoad(queued), NOW)
        return
    with pytest.raises(QuotaExceeded, match=f"{queued} of your tasks wait already, and your limit is 3") as caught:
        refuse_over_quota(limited, ClientLoad(queued), NOW)
    assert caught.value.retry_after_s == QUEUE_RETRY_S


@pytest.mark.parametrize(("audio_s", "refused"), [(0.0, False), (599.9, False), (600.0, True), (900.0, True)])
def test_audio_is_limited_by_the_day(audio_s: float, refused: bool) -> None:
    limited, oldest = client(audio_s=600.0), NOW - timedelta(hours=23)
    if not refused:
        refuse_over_quota(limited, ClientLoad(0, audio_s, oldest), NOW)
        return
    with pytest.raises(QuotaExceeded, match=r"You have used 1[05]\.0 of 10\.0 minutes of audio") as caught:
        refuse_over_quota(limited, ClientLoad(0, audio_s, oldest), NOW)
    assert caught.value.retry_after_s == 3600


def test_who_asks_again_waits_at_least_a_second() -> None:
    with pytest.raises(QuotaExceeded) as caught:
        refuse_over_quota(client(audio_s=1.0), ClientLoad(0, 1.0, NOW - DAY), NOW)
    assert caught.value.retry_after_s == 1


@pytest.mark.parametrize(("audio_s", "pending_s", "refused"), [(300.0, 299.0, False), (300.0, 300.0, True)])
def test_recordings_that_wait_count_as_well(audio_s: float, pending_s: float, refused: bool) -> None:
    load = ClientLoad(0, audio_s, NOW, pending_s)
    refuse_more_audio(600.0, load, NOW)  # they are accepted, and do not stop a running task
    if not refused:
        refuse_over_quota(client(audio_s=600.0), load, NOW)
        return
    sentence = r"used 5\.0 of 10\.0 minutes .* waiting recordings have about 5\.0 more"
    with pytest.raises(QuotaExceeded, match=sentence) as caught:
        refuse_over_quota(client(audio_s=600.0), load, NOW)
    assert caught.value.retry_after_s == QUEUE_RETRY_S


def test_a_clock_that_was_ahead_makes_nobody_wait_for_longer_than_a_day() -> None:
    with pytest.raises(QuotaExceeded) as caught:
        refuse_over_quota(client(audio_s=1.0), ClientLoad(0, 1.0, NOW + timedelta(hours=1)), NOW)
    assert caught.value.retry_after_s == DAY.total_seconds()
