"""The dependencies of the routes: the services, limited to the caller's tasks, the caller, and the task's id."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Query, Request
from pydantic import WithJsonSchema

from deployments.api.request.caller import client_of
from deployments.api.services import Services, services_for, services_of
from pipeline.domain.tasks.client import Client
from pipeline.domain.tasks.task import LARGEST_TASK_ID
from pipeline.errors import InvalidValue, TaskNotFound

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")


async def _services(request: Request) -> Services:
    """Return the services with the store limited to the caller's tasks."""
    return services_for(services_of(request), client_of(request))


async def _client(request: Request) -> Client | None:
    return client_of(request)


async def _task_id(
    task_id: Annotated[str, WithJsonSchema({"type": "integer", "examples": [1]}), Query(description="The task's id.")],
) -> int:
    """Parse a task's id, within the range of the database's integers."""
    text = task_id.strip()
    if not _WHOLE_NUMBER.fullmatch(text):
        raise InvalidValue("task_id must be a whole number.", "task_id")
    if len(text) > len(str(LARGEST_TASK_ID)) or not 0 < int(text) <= LARGEST_TASK_ID:
        raise TaskNotFound("There is no task of that id.")
    return int(text)


ServicesDep = Annotated[Services, Depends(_services)]
ClientDep = Annotated[Client | None, Depends(_client)]
"""The client of a request; ``None`` if the request needs no key. New tasks belong to this client."""
TaskId = Annotated[int, Depends(_task_id)]
