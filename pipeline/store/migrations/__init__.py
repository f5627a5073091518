"""The history of the schema, for Alembic; forward only, since a downgrade would drop what a newer version stored."""
