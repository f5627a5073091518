"""Every statement of the task store, by name. They take values and return SQLAlchemy statements; nothing runs here.

All of them mean the same on SQLite and on MySQL ≥ 8.0.1 or MariaDB ≥ 10.6. ``FOR UPDATE`` is left out on SQLite by
SQLAlchemy: there a writing transaction has the whole database to itself from its first statement.
"""

from pipeline.store.queries import callbacks, common, records, runs, summaries

__all__ = ["callbacks", "common", "records", "runs", "summaries"]
