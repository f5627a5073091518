"""Decoding with an engine, in tests in which no item may fail."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.asr.engine import Decoded, DecodeItem, Engine


def decode_all(engine: Engine, items: Sequence[DecodeItem]) -> list[Decoded]:
    """Decode the items; return a result for each, in their order."""
    results = [result for result in engine.decode(items) if isinstance(result, Decoded)]
    assert len(results) == len(items)
    return results
