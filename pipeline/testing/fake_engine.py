"""An engine that pauses and fails as a test prescribes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from typing_extensions import override

from pipeline.asr.engine import Decoded, DecodeItem
from pipeline.asr.simulated_engine import SimulatedEngine
from pipeline.errors import DecodingFailed
from pipeline.ports import EngineInfo


class FakeEngine(SimulatedEngine):
    """A ``SimulatedEngine`` that returns at once unless it is paused, and fails as prescribed.

    Args:
        info: value of ``info``.
        memory_rows: batches of more chunks than this raise ``MemoryError``.
        fault: called for every item of a batch; an error that it returns is raised for the whole batch.
        result: called for every decoding; it may change it, for example to a repetition loop at temperature 0 or to
            silence, or return ``DecodingFailed``.
        short_windows: whether windows fit the longest chunk and 2 s of margin; otherwise they are always full.
        batch_s: seconds that every batch takes; spent by ``sleep``.
        row_s: seconds that each chunk of a batch adds.
        sleep: waits for so many seconds; simulations pass the one of a fake clock.

    Attributes:
        batches: all batches in order, failed ones included.
        entered: set whenever a batch has begun.
    """

    def __init__(
        self,
        *,
        info: EngineInfo | None = None,
        memory_rows: int | None = None,
        fault: Callable[[DecodeItem], Exception | None] = lambda _: None,
        result: Callable[[DecodeItem, Decoded], Decoded | DecodingFailed] = lambda _, decoded: decoded,
        short_windows: bool = True,
        batch_s: float = 0.0,
        row_s: float = 0.0,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__(
            info or EngineInfo("fake", "fake", "cpu", "int8", ("en", "de", "ja"), 8), short_windows=short_windows
        )
        self._memory_rows = memory_rows
        self._fault = fault
        self._result = result
        self._batch_s = batch_s
        self._row_s = row_s
        self._sleep = sleep
        self._running = threading.Event()
        self._running.set()
        self.entered = threading.Event()
        self.batches: list[tuple[DecodeItem, ...]] = []

    def pause(self) -> None:
        """Stop every batch at its beginning until ``resume``."""
        self._running.clear()
        self.entered.clear()

    def resume(self) -> None:
        """Let batches continue."""
        self._running.set()

    @override
    def decode(self, items: Sequence[DecodeItem]) -> list[Decoded | DecodingFailed]:
        self.batches.append(tuple(items))
        self.entered.set()
        self._running.wait()
        if self._sleep is not None:
            self._sleep(self._batch_s + self._row_s * len(items))
        if self._memory_rows is not None and len(items) > self._memory_rows:
            raise MemoryError
        for error in filter(None, map(self._fault, items)):
            raise error
        return [self._result(item, decoded) for item, decoded in zip(items, self._decode_items(items), strict=True)]
