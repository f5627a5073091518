"""The header ``Idempotency-Key`` of requests that create a task."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header
from pydantic import WithJsonSchema

from pipeline.errors import InvalidValue

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


async def _checked_key(
    idempotency_key: Annotated[
        str | None,
        WithJsonSchema({"type": "string", "pattern": "^[!-~]{1,255}$", "examples": ["2f6f0f6e"]}),
        Header(description="The same key with the same request returns the original task."),
    ] = None,
) -> str | None:
    """Return the key. Raises ``InvalidValue`` if it can't be stored."""
    if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
        raise InvalidValue("Idempotency-Key must have 1 to 255 visible ASCII characters.", "Idempotency-Key")
    return idempotency_key


IdempotencyKey = Annotated[str | None, Depends(_checked_key)]
"""The key of a request; ``None`` if it has none."""
