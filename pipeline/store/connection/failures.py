"""Failures of the database: their sentences for operators, and the errors of this service that they become."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    NotSupportedError,
    PendingRollbackError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pipeline.errors import DatabaseUnavailable
from pipeline.store.connection.database_dialect import DatabaseDialect

UNAVAILABLE = "The task database does not answer."
DATABASE_BUSY = "The task database is busy: another process held its lock for too long."
DATABASE_UNWRITABLE = (
    "The task database can't be opened or written: check its folder, its permissions and the free space."
)
COMMIT_UNANSWERED = (
    "The connection to the task database broke during the commit, so that the result is unknown: send the request "
    "again. With the same Idempotency-Key nothing is done twice."
)
SCHEMA_MISSING = (
    "The task database is not prepared: its tables are missing, or of another version. They are created when the "
    "Dispatcher starts."
)
CONNECTION_GONE = (
    "The file of the task database was removed or replaced during the commit, which may be lost: send the request "
    "again. With the same Idempotency-Key nothing is done twice."
)
LOGIN_REFUSED = "The task database refuses the login or does not exist: check the user, password and name in its URL."


@contextmanager
def translate_database_errors(dialect: DatabaseDialect) -> Iterator[None]:
    """Raise ``DatabaseUnavailable`` for failures of the database; let defects of our statements pass unchanged."""
    try:
        yield
    except (IntegrityError, DataError, NotSupportedError):
        raise
    except DBAPIError as error:
        sentence = dialect.sentence_of(error)
        if sentence is None and isinstance(error, ProgrammingError) and "closed" not in str(error.orig):
            raise
        raise DatabaseUnavailable(sentence or UNAVAILABLE) from error
    except PoolTimeoutError as error:
        raise DatabaseUnavailable(DATABASE_BUSY) from error
    except (DisconnectionError, PendingRollbackError, OSError) as error:  # refused, reset, timed out, broken off
        raise DatabaseUnavailable(UNAVAILABLE) from error
