"""A database as an earlier version left it."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData

from pipeline.domain.tasks.task import NewTask
from pipeline.store.migrate import MIGRATIONS
from pipeline.store.rows.task_codec import new_task_row
from pipeline.testing.manual_clock import ManualClock

NOW = ManualClock().now()


def make_0007(connection: Connection) -> None:
    """Make the tables of the version before quotas by parts, with two tasks whose recordings count."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "0007_tracks")
    before = MetaData()
    before.reflect(connection)
    tasks, taken = before.tables["tasks"], before.tables["taken_audio"]
    row = new_task_row(NewTask(media_prefix="a", client="ann", file_size_bytes=7), NOW)
    row = {name: value for name, value in row.items() if name in tasks.c}
    ids = [
        connection.execute(tasks.insert(), row | {"platform": name}).inserted_primary_key
        for name in ("site", "x" * 300)
    ]
    for key, audio_s in zip(ids, (60.0, 40.0), strict=True):
        assert key is not None
        connection.execute(taken.insert(), {"task_id": key[0], "client": "ann", "audio_s": audio_s, "taken_at": NOW})
