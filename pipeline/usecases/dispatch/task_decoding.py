"""The state of the decoding of one task's chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.domain.decoding.decoding_cost import decoded_cost, relative_cost
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.decoding.transcription_options import TranscriptionOptions

Deliver = Callable[[Sequence[ChunkResult]], Awaitable[None]]


@dataclass(slots=True, kw_only=True, eq=False)
class TaskDecoding:
    """The decoding of one task's chunks.

    Attributes:
        deliver: stores results as they arrive; calls for one task never overlap.
        client: the client whose share of the replicas counts; ``None``: the task has a share of its own.
        language: language of the speech; each unit detects it while this is ``None``.
        previous_tokens: prompt of the next chunk if it is conditioned on the previous text.
        outstanding: number of chunks that were added and have no stored result yet.
        is_input_complete: no more chunks will be added.
        writing: held while results are stored.
        done: resolved once the input is complete and every result is stored; holds the error after a failure.
    """

    task_id: int
    media_prefix: str
    options: TranscriptionOptions
    priority_rank: int
    deliver: Deliver
    language: str | None = None
    client: str | None = None
    previous_tokens: tuple[int, ...] = ()
    outstanding: int = 0
    is_input_complete: bool = False
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def relative_cost(self) -> float:
        """The expected cost of a second of this audio, as a multiple of the cost with default options."""
        return relative_cost(self.options)

    def extra_cost_s(self, results: Iterable[ChunkResult]) -> float:
        """Return the cost of these results beyond the expected one, in seconds of audio with default options."""
        expected = self.relative_cost
        return sum(
            max(0.0, decoded_cost(self.options, result.attempts) - expected) * result.audio_s for result in results
        )

    def complete_input(self) -> None:
        """Declare that no more chunks will be added."""
        self.is_input_complete = True
        self._settle()

    def count_stored(self, count: int) -> None:
        """Count the stored results of ``count`` more chunks."""
        self.outstanding -= count
        self._settle()

    def fail(self, error: BaseException) -> None:
        """End the decoding with an error, unless it has ended."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # keeps asyncio from logging it if nothing waits any more

    def _settle(self) -> None:
        if self.is_input_complete and self.outstanding == 0 and not self.done.done():
            self.done.set_result(None)
