"""An engine that takes as long as a real one but uses no CPU, for trials of a cluster on one machine."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from typing_extensions import override

from pipeline.asr.engine import Decoded, DecodeItem
from pipeline.errors import ConfigurationError, DecodingFailed
from pipeline.ports import EngineInfo
from pipeline.testing.fake_engine import FakeEngine

MODEL = re.compile(r"waiting-(\d+(?:\.\d+)?)x")


class SimulatedEngine(FakeEngine):
    """A ``FakeEngine`` with the speed in its model's name: ``waiting-20x`` decodes 20 s of audio in one second.

    It is used only if the settings name it (``asr.engine: waiting``), and appears by that name in ``EngineInfo`` and in
    every transcript.

    Args:
        model: ``waiting-<speed>x``; ``None`` for ``waiting-20x``.

    Raises:
        ConfigurationError: the model's name has no speed.
    """

    def __init__(self, model: str | None = None) -> None:
        name = model or "waiting-20x"
        speed = MODEL.fullmatch(name)
        if speed is None:
            raise ConfigurationError(
                "asr.model of the engine `waiting` must be `waiting-<speed>x`, such as waiting-20x."
            )
        super().__init__(info=EngineInfo("waiting", name, "none", "none", ("en", "de"), 8))
        self._rtfx = float(speed[1])

    @override
    def decode(self, items: Sequence[DecodeItem]) -> list[Decoded | DecodingFailed]:
        """Decode a batch in the time that its audio takes at the speed of the model."""
        time.sleep(sum(item.duration_s for item in items) / self._rtfx)
        self.batches.clear()  # the list is for tests; here it would keep the features of every recording
        return super().decode(items)
