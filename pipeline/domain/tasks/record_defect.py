"""What a stored record is called that this version can't read."""

from __future__ import annotations

from dataclasses import dataclass

UNREADABLE = "record_unreadable"
"""Code of the error of a task whose record is damaged."""
NEWER = "record_of_newer_version"
"""Code of the error that a task is shown with while its record is left to a newer version."""


@dataclass(frozen=True, slots=True)
class RecordDefect:
    """Why a row of the database could not be read.

    Attributes:
        table: where the row is.
        column: the first column that could not be read.
        row: the row's key, as text.
        newer: whether the value is one that a newer version of this software may have written. Such a row is left to
            that version; any other is damaged.
    """

    table: str
    column: str
    row: str
    newer: bool = False

    @property
    def code(self) -> str:
        """The stable name of the error."""
        return NEWER if self.newer else UNREADABLE

    @property
    def sentence(self) -> str:
        """What a client is told: the name of the column, and nothing of its content."""
        if self.newer:
            return (
                f"The record ({self.table}.{self.column}) was written by a newer version of this service, to which it "
                "is left; cancel or delete the task if that version is not coming back."
            )
        return f"The record can't be read: {self.table}.{self.column} is damaged. Delete the task and create it again."
