"""An engine that takes the time of a real one and none of its cores: for trials of a cluster on one machine."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from pipeline.asr.engine import Decoded, DecodeItem
from pipeline.errors import ConfigurationError, DecodingFailed
from pipeline.ports import EngineInfo
from pipeline.testing.fake_engine import FakeEngine

MODEL = re.compile(r"waiting-(\d+(?:\.\d+)?)x")


class SimulatedEngine(FakeEngine):
    """``FakeEngine`` at the speed its model is named for: ``waiting-20x`` decodes 20 s of audio in a second.

    It is had only by name (``asr.engine: waiting``), and says in ``EngineInfo`` and in every transcript what it is.

    Args:
        model: ``waiting-<speed>x``; ``None`` for ``waiting-20x``.
    """

    def __init__(self, model: str | None = None) -> None:
        named = model or "waiting-20x"
        speed = MODEL.fullmatch(named)
        if speed is None:
            raise ConfigurationError("asr.model of the engine `waiting` is `waiting-<speed>x`, such as waiting-20x.")
        super().__init__(info=EngineInfo("waiting", named, "none", "none", ("en", "de"), 8))
        self._rtfx = float(speed[1])

    def decode(self, items: Sequence[DecodeItem]) -> list[Decoded | DecodingFailed]:
        """See ``Engine.decode``; a batch takes as long as its audio would at the speed of the model."""
        time.sleep(sum(item.duration_s for item in items) / self._rtfx)
        self.batches.clear()  # for tests; here it would hold every recording
        return super().decode(items)
