"""The description of a stored record that this version can't read."""

from __future__ import annotations

from dataclasses import dataclass

UNREADABLE = "record_unreadable"
"""Error code of a task whose record is damaged."""
NEWER = "record_of_newer_version"
"""Error code of a task whose record is left to a newer version."""


@dataclass(frozen=True, slots=True)
class RecordDefect:
    """The reason why a row of the database could not be read.

    Attributes:
        table: table of the row.
        column: first column that could not be read.
        row: key of the row, as text.
        newer: whether a newer version of this software may have written the value. Such a row is left to that version;
            any other is damaged.
    """

    table: str
    column: str
    row: str
    newer: bool = False

    @property
    def code(self) -> str:
        """The error code."""
        return NEWER if self.newer else UNREADABLE

    @property
    def sentence(self) -> str:
        """A sentence for clients: it names the column and shows nothing of its content."""
        if self.newer:
            return (
                f"The record ({self.table}.{self.column}) was written by a newer version of this service, to which it "
                "is left; cancel or delete the task if that version is not coming back."
            )
        return f"The record can't be read: {self.table}.{self.column} is damaged. Delete the task and create it again."
