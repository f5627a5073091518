"""Faults that tests inject."""

from __future__ import annotations

from typing import NoReturn


def raise_defect(*_: object, **__: object) -> NoReturn:
    """Raise an error that no caller expects."""
    raise KeyError(7)
