"""Settings of the section ``confinement``."""

from __future__ import annotations

from pipeline.domain.confinement_level import ConfinementLevel
from pipeline.settings.section import Section


class ConfinementSettings(Section):
    """Confinement of the processes that open recordings and read pages (`docs/media.md`, What holds where)."""

    required: ConfinementLevel = ConfinementLevel.NONE
    """Level that a replica needs to start: `full`, `partial` (some parts hold) or `none`. Each replica tries the
    forbidden acts at its start; the result is in its log and in `GET /api/health/ready`."""
