"""Settings in the Serve config, as ``user_config`` of a WhisperReplica."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings.section import Section


class BatchSettings(Section):
    """The part of a WhisperReplica's ``user_config`` that shapes batches; every value can change without a restart."""

    max_batch_size: int = Field(default=8, ge=1, le=256)
    """Most chunks decoded together."""
    max_batch_s: float = Field(default=4.0, gt=0)
    """Longest predicted time of a batch, for which an urgent chunk may have to wait, since a batch can't be
    interrupted. The limit doubles if nothing urgent has arrived for five minutes."""
    batch_wait_s: float = Field(default=0.02, ge=0, le=5)
    """Time that an idle replica waits for further chunks when it has a single chunk that is not urgent."""
    quality_gate: bool = True
    """Decode chunks again if they fail their thresholds."""
