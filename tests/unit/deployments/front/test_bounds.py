from __future__ import annotations

import pytest
from ray.serve._private import constants

from deployments.front.bounds import (
    BAD_FRAMING,
    HEAD_TOO_LARGE,
    URL_TOO_LONG,
    ConnectionBounds,
    ConnectionTable,
    RequestMeter,
    is_passed_on,
)

BOUNDS = ConnectionBounds(max_head_bytes=1000, max_url_bytes=400, max_headers=10)


class Place:
    """A connection that records whether it was evicted."""

    def __init__(self) -> None:
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True


@pytest.fixture
def meter() -> RequestMeter:
    counted = RequestMeter(BOUNDS)
    counted.request_began()
    return counted


def test_a_head_within_bounds_is_not_refused(meter: RequestMeter) -> None:
    meter.received(900)
    assert meter.url(400) is None
    assert all(meter.header(40) is None for _ in range(10))
    assert meter.parsed() is None


def test_a_url_is_bounded_however_it_is_cut(meter: RequestMeter) -> None:
    assert meter.url(400) is None
    assert meter.url(1) is URL_TOO_LONG
    assert "as form fields" in URL_TOO_LONG.message


def test_headers_are_bounded_in_number(meter: RequestMeter) -> None:
    refusals = [meter.header(1) for _ in range(11)]
    assert refusals == [None] * 10 + [HEAD_TOO_LARGE]


def test_headers_are_bounded_in_size(meter: RequestMeter) -> None:
    assert meter.header(900) is None
    assert meter.header(100) is HEAD_TOO_LARGE


def test_a_header_that_does_not_end_is_bounded(meter: RequestMeter) -> None:
    meter.received(1000)
    assert meter.parsed() is None
    meter.received(1)
    assert meter.parsed() is HEAD_TOO_LARGE


def test_a_request_line_that_does_not_end_is_named(meter: RequestMeter) -> None:
    meter.received(1001)
    meter.url(399)
    meter.url(1)
    assert meter.parsed() is HEAD_TOO_LARGE
    meter.received(1001)
    meter._url_bytes = 2000
    assert meter.parsed() is URL_TOO_LONG


def test_a_large_body_costs_nothing(meter: RequestMeter) -> None:
    meter.head_ended()
    for _ in range(100):
        meter.received(100_000)
        meter.body(100_000)
        assert meter.parsed() is None


def test_small_chunks_may_cost_their_framing(meter: RequestMeter) -> None:
    meter.head_ended()
    for _ in range(10_000):
        meter.received(len(b"1\r\na\r\n"))
        meter.body(1)
        assert meter.parsed() is None


@pytest.mark.parametrize("what", ["a chunk's extension", "trailers"])
def test_framing_without_a_body_is_bounded(meter: RequestMeter, what: str) -> None:
    meter.head_ended()
    meter.received(1000)
    assert meter.parsed() is None
    meter.received(1)
    assert meter.parsed() is BAD_FRAMING


def test_trailers_count_as_headers(meter: RequestMeter) -> None:
    for _ in range(6):
        meter.header(1)
    meter.head_ended()
    assert [meter.header(1) for _ in range(5)] == [None] * 4 + [HEAD_TOO_LARGE]


def test_each_request_is_counted_anew(meter: RequestMeter) -> None:
    for _ in range(100):
        meter.request_began()
        meter.received(900)
        assert meter.url(300) is None
        assert meter.header(500) is None
        meter.head_ended()
        meter.request_ended()
        assert meter.parsed() is None


@pytest.mark.parametrize(
    "name",
    [
        constants.SERVE_MULTIPLEXED_MODEL_ID,
        constants.SERVE_SESSION_ID,
        constants.SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER,
        constants.SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER,
        f"{constants.SERVE_INGRESS_ROUTER_HEADER_PREFIX}any",
    ],
)
def test_clients_do_not_tell_serve_how_to_run_a_request(name: str) -> None:
    for spelt in (name, name.upper(), name.replace("_", "-"), name.replace("-", "_")):
        assert not is_passed_on(spelt.encode(), b"?1")


@pytest.mark.parametrize(
    ("value", "expected"), [(b"7f3a-1", True), (b"a" * 128, True), (b"a" * 129, False), (b"\xff", False)]
)
def test_a_request_id_is_short_and_plain(value: bytes, expected: bool) -> None:
    assert is_passed_on(b"X-Request-ID", value) is expected


def test_other_headers_are_passed_on() -> None:
    assert all(is_passed_on(name, b"\xff") for name in (b"authorization", b"x-forwarded-for", b"idempotency-key"))


def test_a_full_table_lets_the_longest_waiting_go() -> None:
    table: ConnectionTable[Place] = ConnectionTable(2)
    first, second, third = Place(), Place(), Place()
    assert [table.admit(place) for place in (first, second, third)] == [True] * 3
    assert (first.evicted, second.evicted, third.evicted) == (True, False, False)
    assert len(table) == 2


def test_a_request_in_progress_keeps_its_place() -> None:
    table: ConnectionTable[Place] = ConnectionTable(2)
    busy, waiting, new = Place(), Place(), Place()
    table.admit(busy)
    table.request_began(busy)
    table.admit(waiting)
    assert table.admit(new)
    assert (busy.evicted, waiting.evicted) == (False, True)


def test_a_table_of_requests_in_progress_takes_no_more() -> None:
    table: ConnectionTable[Place] = ConnectionTable(1)
    busy, new = Place(), Place()
    table.admit(busy)
    table.request_began(busy)
    assert not table.admit(new)
    table.request_ended(busy)
    assert table.admit(new)
    assert busy.evicted


def test_a_connection_that_leaves_frees_its_place() -> None:
    table: ConnectionTable[Place] = ConnectionTable(1)
    for _ in range(3):
        place = Place()
        assert table.admit(place)
        table.request_began(place)
        table.leave(place)
        table.request_ended(place)
    assert len(table) == 0
