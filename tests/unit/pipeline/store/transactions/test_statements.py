"""Statements that run all the time, or over large tables, must walk an index: SQLite's own plan says whether."""

from __future__ import annotations

import re
import sqlite3
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.sql import ClauseElement

from pipeline.domain.summaries.summary import SummaryOptions
from pipeline.domain.tasks.task import Priority, Status
from pipeline.ports import Lease, SummaryLease, TaskQuery
from pipeline.store.tables import METADATA
from pipeline.store.transactions import (
    callback_outbox,
    chunk_results,
    claims,
    completion,
    idempotency,
    queue_stats,
    summary_queue,
    task_filters,
    task_housekeeping,
    task_leases,
    task_operations,
)

NOW = datetime(2025, 1, 1, tzinfo=UTC)
LEASE = Lease(1, 1)
CLAIM = {"now": NOW, "max_losses": 3, "depth": 5, "client_0": "ann"}
FLOWS = ((0, True), (1, False))
"""Tasks of one client, and tasks without a client."""
WALKED = {
    "claims.select_heads": claims._select_heads(frozenset({0}), loose_scans=False).params(now=NOW),
    "claims.select_candidates": claims._select_candidates(FLOWS, frozenset({0})).params(CLAIM),
    "claims.lock_claimable": claims._lock_claimable([1, 2], NOW, 3),
    "claims.update_claimed": claims._update_claimed([1, 2], NOW, 3, "me", NOW),
    "task_leases.update_expiry": task_leases._update_expiry([LEASE], NOW),
    "completion.select_exhausted": completion._select_exhausted(NOW, 3),
    "completion.lock_exhausted": completion._lock_exhausted(NOW, 3),
    "queue_stats.select_live_totals": queue_stats._select_live_totals(0.001),
    "queue_stats.select_recent_density": queue_stats._select_recent_density(),
    "task_housekeeping.lock_with_recording": task_housekeeping._lock_with_recording(NOW, 5, [Status.FAILED]),
    "callback_outbox.select_settled": callback_outbox._select_settled(NOW, 5),
    "idempotency.select_expired_keys": idempotency._select_expired_keys(NOW, 5),
    "task_leases.select_owners": task_leases._select_owners(NOW),
    "task_leases.update_expired_tasks": task_leases._update_expired_tasks("me", NOW),
    "task_leases.update_expired_callbacks": task_leases._update_expired_callbacks("me", NOW),
    "task_leases.lock_leased": task_leases._lock_leased(LEASE),
    "task_filters.select_page": task_filters.select_page(TaskQuery(status=Status.COMPLETED, priority=Priority.NORMAL)),
    "task_filters.select_page of any status": task_filters.select_page(TaskQuery(has_result=True, has_error=False)),
    "task_housekeeping.lock_expired": task_housekeeping._lock_expired(NOW, 5),
    "task_housekeeping.lock_unawaited": task_housekeeping._lock_unawaited(NOW, 5),
    "task_housekeeping.select_prefixes": task_housekeeping._select_prefixes(["a", "b"], transcribed=False),
    "summary_queue.select_due": summary_queue._select_due(NOW, 5),
    "summary_queue.update_owner": summary_queue._update_owner([1, 2], "me", NOW, NOW),
    "task_operations.update_summary_due": task_operations._update_summary_due(1, NOW),
    "summary_queue.update_leased": summary_queue._update_leased(
        SummaryLease(1, "t1", 1, "me", 1, SummaryOptions()), {"summary_owner": None}
    ),
    "task_leases.update_expired_summaries": task_leases._update_expired_summaries("me", NOW),
    "callback_outbox.select_due": callback_outbox._select_due(NOW, 5),
    "callback_outbox.update_task": callback_outbox._update_task(1, 1, {"callback_status_code": 200}),
    "queue_stats.select_number_of_callbacks": queue_stats._select_number_of_callbacks(),
    "callback_outbox.delete_undelivered": callback_outbox._delete_undelivered(1),
    "chunk_results.select_chunks": chunk_results._select_chunks(1),
    "chunk_results.select_results": chunk_results._select_results(1, 5),
    "chunk_results.select_parts": chunk_results._select_parts(1),
}


@pytest.fixture(scope="module")
def connection() -> Any:
    engine = create_engine("sqlite://")
    METADATA.create_all(engine)
    raw = engine.raw_connection()
    yield raw.driver_connection
    raw.close()
    engine.dispose()


def plan(connection: sqlite3.Connection, statement: ClauseElement) -> list[str]:
    sql = str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]


@pytest.mark.parametrize("name", WALKED)
def test_an_index_is_walked(connection: sqlite3.Connection, name: str) -> None:
    names = re.compile(rf" ({'|'.join(METADATA.tables)})\b")
    tables = [step for step in plan(connection, WALKED[name]) if names.search(step)]

    assert tables
    assert not [step for step in tables if "INDEX" not in step and "PRIMARY KEY" not in step]


def test_waiting_tasks_are_found_in_order_without_sorting(connection: sqlite3.Connection) -> None:
    steps = plan(connection, claims._select_candidates(FLOWS, frozenset({0, 1})).params(CLAIM))

    walked = [step for step in steps if claims.CLAIM_INDEX in step]
    sorted_ = [step for step in steps if "TEMP B-TREE" in step]
    assert len(walked) == 2
    assert len(sorted_) == 2  # the few whose lease expired, found by that


def test_pages_come_in_order_without_sorting(connection: sqlite3.Connection) -> None:
    for name in ("task_filters.select_page", "task_filters.select_page of any status", "callback_outbox.select_due"):
        assert not any("TEMP B-TREE" in step for step in plan(connection, WALKED[name]))


def test_mysql_is_told_which_index_a_claim_walks() -> None:
    indexes = {index.name for index in METADATA.tables["tasks"].indexes}
    heads = claims._select_heads(frozenset({0}), loose_scans=True).compile(dialect=mysql.dialect())
    tasks = claims._select_candidates(FLOWS, frozenset({0})).compile(dialect=mysql.dialect())
    forced = re.findall(r"FORCE INDEX \((\w+)\)", f"{heads} {tasks}")
    assert len(forced) == 8  # of the clients, of the first task of each in two columns, and of tasks
    assert set(forced) <= indexes


def test_candidates_are_locked_where_the_database_can() -> None:
    statement = claims._lock_claimable([1], NOW, 3)

    assert str(statement.compile(dialect=mysql.dialect())).endswith("FOR UPDATE SKIP LOCKED")
    assert "FOR UPDATE" not in str(statement.compile(dialect=sqlite.dialect()))
