"""The durability of commits across a power failure."""

from __future__ import annotations

from enum import StrEnum


class Durability(StrEnum):
    """The durability of a commit that a client relies on."""

    FULL = "full"
    """The commit waits until the disk has it: a power failure loses nothing that was promised."""
    NORMAL = "normal"
    """The commit does not wait: a power failure may lose the last commits, but the database stays consistent."""
