"""Idempotency keys: the task that a repeated request belongs to."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, Delete, Select, delete, insert, select

from pipeline.domain.tasks.task import IdempotencyClaim
from pipeline.errors import IdempotencyConflict
from pipeline.store.rows import task_codec
from pipeline.store.tables import IDEMPOTENCY_KEYS, TASKS


def find_original(connection: Connection, claim: IdempotencyClaim, now: datetime) -> int | None:
    """Return the id of the task that was created with the key, if there is one.

    Raises ``IdempotencyConflict`` if the key was used for another request. A damaged row, which leads to no task, is
    deleted.
    """
    digest = task_codec.key_digest(claim.key)
    row = connection.execute(_select_key(digest, now)).one_or_none()
    if row is None:
        return None
    if row.fingerprint != claim.fingerprint:
        raise IdempotencyConflict("This Idempotency-Key was already used for another request; use a new key.")
    if isinstance(row.task_id, int) and connection.execute(_select_task_id(row.task_id)).first():
        return row.task_id
    connection.execute(_delete_key(digest))
    return None


def store_key(
    connection: Connection, claim: IdempotencyClaim, task_id: int, now: datetime, expires_at: datetime
) -> None:
    """Store the key of a new task. Raises ``IntegrityError`` if another process has just stored the same key."""
    digest = task_codec.key_digest(claim.key)
    connection.execute(_delete_expired_key(digest, now))
    row = {"key_sha256": digest, "fingerprint": claim.fingerprint, "task_id": task_id, "expires_at": expires_at}
    connection.execute(insert(IDEMPOTENCY_KEYS), row)


def prune_keys(connection: Connection, now: datetime, limit: int) -> int:
    """Delete up to ``limit`` expired keys; return the number."""
    digests = connection.scalars(_select_expired_keys(now, limit)).all()
    if digests:
        connection.execute(_delete_expired_keys(digests, now))
    return len(digests)


def _select_key(key_sha256: str, now: datetime) -> Select[str, int]:
    """Select a key that has not expired."""
    return select(IDEMPOTENCY_KEYS.c.fingerprint, IDEMPOTENCY_KEYS.c.task_id).where(
        IDEMPOTENCY_KEYS.c.key_sha256 == key_sha256, IDEMPOTENCY_KEYS.c.expires_at > now
    )


def _select_task_id(task_id: int) -> Select[int]:
    """Select the task's id, if the task exists."""
    return select(TASKS.c.id).where(TASKS.c.id == task_id)


def _select_expired_keys(now: datetime, limit: int) -> Select[str]:
    return select(IDEMPOTENCY_KEYS.c.key_sha256).where(IDEMPOTENCY_KEYS.c.expires_at <= now).limit(limit)


def _delete_key(key_sha256: str) -> Delete:
    """Delete a key, expired or not."""
    return delete(IDEMPOTENCY_KEYS).where(IDEMPOTENCY_KEYS.c.key_sha256 == key_sha256)


def _delete_expired_key(key_sha256: str, now: datetime) -> Delete:
    return delete(IDEMPOTENCY_KEYS).where(
        IDEMPOTENCY_KEYS.c.key_sha256 == key_sha256, IDEMPOTENCY_KEYS.c.expires_at <= now
    )


def _delete_expired_keys(digests: Collection[str], now: datetime) -> Delete:
    """Delete keys, except those that were stored again since they expired."""
    return delete(IDEMPOTENCY_KEYS).where(
        IDEMPOTENCY_KEYS.c.key_sha256.in_(digests), IDEMPOTENCY_KEYS.c.expires_at <= now
    )
