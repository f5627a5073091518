"""What a power cut may cost."""

from __future__ import annotations

from enum import StrEnum


class Durability(StrEnum):
    """Whether a commit that a client relies on waits until the disk has it."""

    FULL = "full"
    """It does: a power cut loses nothing that was promised."""
    NORMAL = "normal"
    """It does not: a power cut may lose the last commits, though the database stays whole."""
