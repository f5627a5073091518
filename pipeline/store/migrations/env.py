"""Alembic runs this for every command; the connection is handed in by ``pipeline.store.migrate``."""

from alembic import context

from pipeline.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
