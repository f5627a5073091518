"""The transactions whose commits need not wait for the disk."""

from __future__ import annotations

from pipeline.store.transactions import (
    callback_outbox,
    chunk_results,
    claims,
    client_usage,
    completion,
    idempotency,
    summary_queue,
    task_leases,
    task_operations,
)

RECOMPUTABLE = (
    claims.claim,
    task_leases.renew,
    task_leases.expire_of,
    completion.release,
    task_leases.update_task,
    task_leases.save_crawl_record,
    chunk_results.add_part,
    chunk_results.save_results,
    task_operations.extend_wait,
    callback_outbox.prune_callbacks,
    idempotency.prune_keys,
    summary_queue.claim,
    summary_queue.renew,
    summary_queue.postpone,
    callback_outbox.claim,
    client_usage.begin_extraction,
    client_usage.charge_extraction,
    client_usage.delete_old_usage,
)
"""Transactions that a power cut may undo. The processes that hold the leases end with the machine, and parts, results
and due times are made again. Every other commit is a promise to a client."""
