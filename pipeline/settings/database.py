"""Settings of the section ``database``."""

from __future__ import annotations

from pydantic import Field, SecretStr

from pipeline.domain.durability import Durability
from pipeline.settings.section import Section


class DatabaseSettings(Section):
    """The database of tasks."""

    url: SecretStr | None = None
    """SQLAlchemy URL: `sqlite+aiosqlite:////folder/tasks.db` or `mysql+asyncmy://user:password@host/name`.
    Empty: an SQLite file in `data_dir`. A URL with a password belongs in the environment."""
    busy_timeout_s: float = Field(default=15.0, gt=0)
    """Seconds that a statement waits for a lock before it fails."""
    idempotency_ttl_s: float = Field(default=86_400.0, gt=0)
    """Seconds after which an `Idempotency-Key` expires."""
    durability: Durability = Durability.FULL
    """Data that a power failure may lose. `full`: nothing that a client was promised; every such commit waits for the
    disk. `normal`: on SQLite the last commits before the failure. A MySQL server decides by its own settings: with
    `full` the log warns if they can lose commits."""
