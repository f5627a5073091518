from __future__ import annotations

import pytest

from pipeline.asr.simulated_engine import SimulatedEngine
from pipeline.errors import ConfigurationError


def test_the_engine_says_what_it_is() -> None:
    info = SimulatedEngine.of_model().info
    assert (info.engine, info.model) == ("waiting", "waiting-20x")


@pytest.mark.parametrize("model", ["base", "waiting", "waiting-x", "waiting--1x"])
def test_a_model_is_a_speed(model: str) -> None:
    with pytest.raises(ConfigurationError, match="waiting-20x"):
        SimulatedEngine.of_model(model)
