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
from pipeline.store import queries
from pipeline.store.tables import METADATA

NOW = datetime(2025, 1, 1, tzinfo=UTC)
LEASE = Lease(1, 1)
CLAIM = {"now": NOW, "max_losses": 3, "depth": 5, "client_0": "ann"}
GROUPS = ((0, True), (1, False))
"""Tasks of one client, and tasks without a client."""
WALKED = {
    "claim_heads": queries.runs.claim_heads(frozenset({0}), loose_scans=False).params(now=NOW),
    "claim_candidates": queries.runs.claim_candidates(GROUPS, frozenset({0})).params(CLAIM),
    "lock_claimable": queries.runs.lock_claimable([1, 2], NOW, 3),
    "claim_tasks": queries.runs.claim_tasks([1, 2], NOW, 3, "me", NOW),
    "renew_leases": queries.runs.renew_leases([LEASE], NOW),
    "any_exhausted": queries.runs.any_exhausted(NOW, 3),
    "lock_exhausted": queries.runs.lock_exhausted(NOW, 3),
    "live_totals": queries.records.live_totals(0.001),
    "recent_density": queries.records.recent_density(),
    "finished_recordings": queries.records.finished_recordings(NOW, 5, [Status.FAILED]),
    "settled_callbacks": queries.callbacks.settled_callbacks(NOW, 5),
    "expired_keys": queries.records.expired_keys(NOW, 5),
    "lease_owners": queries.runs.lease_owners(NOW),
    "expire_task_leases": queries.runs.expire_task_leases("me", NOW),
    "expire_callback_leases": queries.runs.expire_callback_leases("me", NOW),
    "lock_leased": queries.runs.lock_leased(LEASE),
    "task_page": queries.records.task_page(TaskQuery(status=Status.COMPLETED, priority=Priority.NORMAL)),
    "any page": queries.records.task_page(TaskQuery(has_result=True, has_error=False)),
    "expired_records": queries.records.expired_records(NOW, 5),
    "unawaited_records": queries.records.unawaited_records(NOW, 5),
    "prefixes_in_use": queries.records.prefixes_in_use(["a", "b"], transcribed=False),
    "due_summaries": queries.summaries.due_summaries(NOW, 5),
    "take_summaries": queries.summaries.take_summaries([1, 2], "me", NOW, NOW),
    "resume_summary": queries.summaries.resume_summary(1, NOW),
    "change_summary": queries.summaries.change_summary(
        SummaryLease(1, "t1", 1, "me", 1, SummaryOptions()), {"summary_owner": None}
    ),
    "expire_summary_leases": queries.runs.expire_summary_leases("me", NOW),
    "due_callbacks": queries.callbacks.due_callbacks(NOW, 5),
    "update_callback_state": queries.callbacks.update_callback_state(1, 1, {"callback_status_code": 200}),
    "waiting_callbacks": queries.callbacks.waiting_callbacks(),
    "withdraw_callbacks": queries.callbacks.withdraw_callbacks(1),
    "chunks": queries.runs.chunks(1),
    "results": queries.runs.results(1, 5),
    "parts": queries.runs.parts(1),
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
    steps = plan(connection, queries.runs.claim_candidates(GROUPS, frozenset({0, 1})).params(CLAIM))

    walked = [step for step in steps if queries.runs.CLAIM_INDEX in step]
    sorted_ = [step for step in steps if "TEMP B-TREE" in step]
    assert len(walked) == 2
    assert len(sorted_) == 2  # the few whose lease expired, found by that


def test_pages_come_in_order_without_sorting(connection: sqlite3.Connection) -> None:
    for name in ("task_page", "any page", "due_callbacks"):
        assert not any("TEMP B-TREE" in step for step in plan(connection, WALKED[name]))


def test_mysql_is_told_which_index_a_claim_walks() -> None:
    indexes = {index.name for index in METADATA.tables["tasks"].indexes}
    heads = queries.runs.claim_heads(frozenset({0}), loose_scans=True).compile(dialect=mysql.dialect())
    tasks = queries.runs.claim_candidates(GROUPS, frozenset({0})).compile(dialect=mysql.dialect())
    forced = re.findall(r"FORCE INDEX \((\w+)\)", f"{heads} {tasks}")
    assert len(forced) == 8  # of the clients, of the first task of each in two columns, and of tasks
    assert set(forced) <= indexes


def test_candidates_are_locked_where_the_database_can() -> None:
    statement = queries.runs.lock_claimable([1], NOW, 3)

    assert str(statement.compile(dialect=mysql.dialect())).endswith("FOR UPDATE SKIP LOCKED")
    assert "FOR UPDATE" not in str(statement.compile(dialect=sqlite.dialect()))
