"""Conditions on tasks, for pages of a query and for every other choice by transcript."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, case, func, select, true

from pipeline.domain.tasks.task import Status
from pipeline.ports import TaskQuery
from pipeline.store.tables import TASKS, TRANSCRIPTS


def select_page(query: TaskQuery) -> Select[int]:
    """Select the ids of one page of the matching tasks, from an index alone, however deep the page lies."""
    order = [column.desc() if query.descending else column for column in (TASKS.c.created_at, TASKS.c.id)]
    return select(TASKS.c.id).where(*_filters(query)).order_by(*order).limit(query.limit).offset(query.offset)


def select_total(query: TaskQuery) -> Select[int]:
    """Select the number of all matching tasks."""
    if query.status is not None or not query.has_result:
        return _select_number(*_filters(query))
    # In two parts, because MariaDB would look up the transcript of every completed task too if both were one condition.
    others = _filters(replace(query, has_result=None))
    completed = TASKS.c.status == Status.COMPLETED.value, *others
    transcribed = TASKS.join(TRANSCRIPTS, TRANSCRIPTS.c.task_id == TASKS.c.id)
    unfinished = select(func.count()).select_from(transcribed).where(TASKS.c.status != Status.COMPLETED.value, *others)
    return select(_select_number(*completed).scalar_subquery() + unfinished.scalar_subquery())


def has_transcript() -> ColumnElement[bool]:
    """Return the condition that a task has a transcript."""
    return _number_of_transcripts() > 0


def _select_number(*conditions: ColumnElement[bool]) -> Select[int]:
    return select(func.count()).select_from(TASKS).where(*conditions)


def _filters(query: TaskQuery) -> list[ColumnElement[bool]]:
    equal = {
        TASKS.c.status: query.status,
        TASKS.c.language: query.language,
        TASKS.c.engine_name: query.engine_name,
        TASKS.c.task_type: query.task_type,
        TASKS.c.platform: query.platform,
        TASKS.c.client: query.client,
    }
    # str(), because a driver takes text, not enums.
    conditions = [column == str(value) for column, value in equal.items() if value is not None]
    if query.priority is not None:
        conditions.append(TASKS.c.priority_rank == query.priority.rank)
    if query.created_after is not None:
        conditions.append(TASKS.c.created_at >= query.created_after)
    if query.created_before is not None:
        conditions.append(TASKS.c.created_at <= query.created_before)
    if query.has_result is not None:
        conditions.append(_has_result(query.status) if query.has_result else _has_no_result())
    if query.has_error is not None:
        conditions.append(TASKS.c.error_code.is_not(None) if query.has_error else TASKS.c.error_code.is_(None))
    return conditions


def _has_result(status: Status | None) -> ColumnElement[bool]:
    """Return ``has_transcript`` in a form that looks up no completed task, because each of those has a transcript."""
    if status is Status.COMPLETED:
        return true()
    return case((TASKS.c.status == Status.COMPLETED.value, 1), else_=_number_of_transcripts()) > 0


def _has_no_result() -> ColumnElement[bool]:
    return and_(TASKS.c.status != Status.COMPLETED.value, ~has_transcript())


def _number_of_transcripts() -> ScalarSelect[int]:
    """Return the number of transcripts of a task: 1 or 0.

    A count, not ``EXISTS``: for that MariaDB makes a list of all transcripts first, and reads every one for it.
    """
    of_task = select(func.count()).select_from(TRANSCRIPTS).where(TRANSCRIPTS.c.task_id == TASKS.c.id)
    return of_task.correlate(TASKS).scalar_subquery()
