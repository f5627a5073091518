"""The rule for pausing a split, so that another recording can be split meanwhile."""

from __future__ import annotations

from pipeline.domain.audio.spans import to_samples

PAUSE_AFTER_S = 600.0
"""A split is not paused before it has got this far into the recording."""

PAUSE_GROWTH = 3
"""A resumed split may be paused again once it has got this many times as far as the last pause."""


def may_pause(began_at: int, reached: int) -> bool:
    """Return whether a split may pause at the end of a part, so that another can run.

    A resumed split decodes the recording again up to the pause. Each pause comes ``PAUSE_GROWTH`` times as far into the
    recording as the one before. So all pauses together repeat at most one and a half times the length up to the last.

    Args:
        began_at: sample at which the split began or was last resumed.
        reached: sample at which its last part ends.
    """
    return reached >= max(PAUSE_GROWTH * began_at, to_samples(PAUSE_AFTER_S))
