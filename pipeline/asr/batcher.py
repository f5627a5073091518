"""Cross-request batching: one thread decodes, in batches, the chunks of every task on the replica.

A batch can't be interrupted, so all that is decided about chunks (priority, cancel, new settings) is decided between
batches, and ``max_batch_s`` bounds how long that takes. While nothing more urgent comes, a batch may take twice as
long: larger ones get more done.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from bisect import insort
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from pipeline.asr.batch_cost import CostModel
from pipeline.asr.batch_selection import select_batch
from pipeline.asr.engine import FRAMES_PER_SECOND, Decoded, DecodeItem, Engine
from pipeline.asr.pending_chunk import RECOVERY_REASON, DecodedChunk, PendingChunk
from pipeline.errors import DecodingFailed, MurmurationError, ReplicaLost, TaskCancelled
from pipeline.observability import NoMetrics
from pipeline.ports import Metrics
from pipeline.settings import BatchSettings

logger = logging.getLogger(__name__)

URGENCY_WINDOW_S = 300.0
"""For so long after a chunk came that was more urgent than one at hand, the next one is expected."""
RELAXED_FACTOR = 2.0
"""How many times ``max_batch_s`` a batch may take while none is."""
MAX_DEFERRED_BATCHES = 4
"""So many batches of others of its rank a chunk that failed the gate lets go first, while there are any. Few chunks
fail, and each would fill a batch alone."""


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """One chunk for the batcher. ``rank`` 0 is served first; of equal ranks, the lower ``start_tag``."""

    task_id: int
    item: DecodeItem
    rank: int
    start_tag: float


@dataclass(frozen=True, slots=True)
class BatchStats:
    """What the batcher has done so far.

    Attributes:
        batches: calls of the engine that returned.
        chunks: decodings, retries included; over ``batches`` it is the mean batch fill.
        retries: decodings that the quality gate, or speech without words, sent back into the line.
        failures: chunks that could not be decoded.
        audio_s: seconds of audio decoded, each decoding counted.
        window_s: seconds of audio encoded, padding included; ``audio_s`` over it is what was not wasted.
        busy_s: seconds the engine worked.
        waiting: chunks in line now.
    """

    batches: int = 0
    chunks: int = 0
    retries: int = 0
    failures: int = 0
    audio_s: float = 0.0
    window_s: float = 0.0
    busy_s: float = 0.0
    waiting: int = 0


class MicroBatcher:
    """Decodes chunks in batches across tasks, by priority and age, on its own thread.

    Args:
        engine: decodes.
        settings: sizes and times; see ``reconfigure``.
        clock: seconds that never run backwards, to measure batches with.
        metrics: told of every batch, on the inference thread.
    """

    def __init__(
        self,
        engine: Engine,
        settings: BatchSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        metrics: Metrics | None = None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._metrics = metrics or NoMetrics()
        self._cost = CostModel()
        self._fitting_rows: int | None = None
        self._changed = threading.Condition()
        self._sequence = itertools.count()
        self._waiting: list[PendingChunk] = []
        self._running: list[PendingChunk] = []
        self._number = 0
        self._stats = BatchStats()
        self._closed = False
        self._broken = False
        self._decoding_since: float | None = None
        self._overtaken_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> MicroBatcher:
        """Starts the inference thread; what was submitted before waits for it."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stops after the running batch; chunks still in line fail with ``ReplicaLost``."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._fail_all(ReplicaLost("The replica shut down with this audio still in line."))

    @property
    def healthy(self) -> bool:
        """Whether chunks that are submitted will be decoded; once ``False`` it stays so, and the process must go."""
        return not self._closed and not self._broken

    @property
    def decoding_s(self) -> float:
        """How long the batch that is being decoded has taken so far, in seconds; 0 between batches."""
        since = self._decoding_since
        return 0.0 if since is None else self._clock() - since

    @property
    def settings(self) -> BatchSettings:
        """The settings in force."""
        return self._settings

    def reconfigure(self, settings: BatchSettings) -> None:
        """Changes sizes and times from the next batch on."""
        with self._changed:
            self._settings = settings
            self._fitting_rows = None
            self._changed.notify_all()

    def stats(self) -> BatchStats:
        """A snapshot of the figures."""
        with self._changed:
            return replace(self._stats, waiting=len(self._waiting))

    def submit(self, submissions: Iterable[DecodeRequest]) -> list[PendingChunk]:
        """Puts chunks in line, all at once, so that they can share the next batch.

        Returns:
            A pending chunk for each, in order; its ``future`` gets the ``DecodedChunk``, or ``DecodingFailed``,
            ``TaskCancelled`` or ``ReplicaLost``. Futures are resolved on the inference thread and can't be cancelled:
            see ``withdraw``.
        """
        tickets = [self._to_pending_chunk(submission) for submission in submissions]
        with self._changed:
            self._record_urgency(tickets)
            for ticket in tickets:
                if self.healthy:
                    insort(self._waiting, ticket, key=lambda waiting: waiting.order)
                else:
                    ticket.future.set_exception(ReplicaLost("The replica does not decode any more."))
            self._changed.notify_all()
        return tickets

    def _record_urgency(self, arriving: Sequence[PendingChunk]) -> None:
        """Notes when a chunk comes that goes before one that is here."""
        last = max((ticket.rank for ticket in [*self._running, *self._waiting[-1:]]), default=0)
        if any(ticket.rank < last for ticket in arriving):
            self._overtaken_at = self._clock()

    @property
    def _max_batch_s(self) -> float:
        urgent = self._overtaken_at is not None and self._clock() - self._overtaken_at < URGENCY_WINDOW_S
        return self._settings.max_batch_s * (1.0 if urgent else RELAXED_FACTOR)

    def withdraw(self, tickets: Collection[PendingChunk]) -> None:
        """Drops these chunks, which fail with ``TaskCancelled``; what is being decoded of them is thrown away."""
        with self._changed:
            for ticket in (ticket for ticket in [*self._waiting, *self._running] if ticket in tickets):
                self._fail(ticket, TaskCancelled("The task was cancelled."))
            self._waiting = [ticket for ticket in self._waiting if not ticket.future.done()]

    def _to_pending_chunk(self, submission: DecodeRequest) -> PendingChunk:
        item = submission.item
        ticket = PendingChunk(
            task_id=submission.task_id,
            rank=submission.rank,
            age=(submission.start_tag, next(self._sequence)),
            item=item,
            key=self._engine.batch_key(item),
            frames=self._engine.window_frames([item]),
        )
        # Only the batcher settles futures: once running they can't be cancelled behind its back.
        ticket.future.set_running_or_notify_cancel()
        return ticket

    # --- the inference thread

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._process(batch)
        except Exception:
            logger.exception("the inference thread has died; this replica must be replaced")
        finally:
            self._broken = not self._closed
            self._fail_all(ReplicaLost("The replica can't decode any more."))

    def _next_batch(self) -> list[PendingChunk]:
        """Waits for work; empty when the batcher is closed."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._changed.wait_for(self._stop_waiting, timeout=self._settings.batch_wait_s)
            if self._closed:
                return []
            self._number += 1
            rows = min(self._settings.max_batch_size, self._fitting_rows or self._settings.max_batch_size)
            self._running = select_batch(self._waiting, rows, self._max_batch_s, self._cost, self._number)
            self._waiting = [ticket for ticket in self._waiting if ticket not in self._running]
            return self._running

    def _stop_waiting(self) -> bool:
        return self._closed or len(self._waiting) != 1 or self._waiting[0].rank == 0

    def _process(self, batch: list[PendingChunk]) -> None:
        for ticket, decoded in zip(batch, self._decode(batch), strict=True):
            with self._changed:
                self._record_result(ticket, decoded)
        with self._changed:
            self._running = []

    def _decode(self, batch: Sequence[PendingChunk]) -> list[Decoded | DecodingFailed]:
        """Decodes a batch; in halves if it doesn't fit, one by one if it fails, so that one chunk fails alone."""
        items = [ticket.item for ticket in batch]
        cost_factor = batch[0].cost_factor
        frames = self._engine.window_frames(items)
        started = self._decoding_since = self._clock()
        try:
            decoded = self._engine.decode(items)
        except MemoryError:
            return self._decode_halves(batch)
        except ReplicaLost:
            raise
        except Exception:
            logger.exception("a batch of %d chunks could not be decoded", len(batch))
            if len(batch) == 1:
                return [DecodingFailed("The model could not decode this stretch of audio.")]
            return [answer for ticket in batch for answer in self._decode([ticket])]
        finally:
            self._decoding_since = None
        seconds = self._clock() - started
        self._cost.observe(len(items), frames, seconds, cost_factor)
        self._update_cost_model(items, frames, seconds)
        return decoded

    def _decode_halves(self, batch: Sequence[PendingChunk]) -> list[Decoded | DecodingFailed]:
        if len(batch) == 1:
            return [DecodingFailed("The device's memory is too small to decode this stretch of audio.")]
        half = len(batch) // 2
        logger.warning("a batch of %d chunks does not fit into memory; it is halved", len(batch))
        self._fitting_rows = half
        return self._decode(batch[:half]) + self._decode(batch[half:])

    def _update_cost_model(self, items: Sequence[DecodeItem], frames: int, seconds: float) -> None:
        audio_s = sum(item.duration_s for item in items)
        self._metrics.observe("batch_size", len(items))
        self._metrics.observe("batch_fill", min(1.0, len(items) / self._settings.max_batch_size))
        self._metrics.observe("window_seconds", frames / FRAMES_PER_SECOND)
        self._metrics.observe("batch_seconds", seconds)
        self._metrics.count("audio_seconds", audio_s)
        with self._changed:
            self._stats = replace(
                self._stats,
                batches=self._stats.batches + 1,
                chunks=self._stats.chunks + len(items),
                audio_s=self._stats.audio_s + audio_s,
                window_s=self._stats.window_s + len(items) * frames / FRAMES_PER_SECOND,
                busy_s=self._stats.busy_s + seconds,
            )

    def _record_result(self, ticket: PendingChunk, decoded: Decoded | DecodingFailed) -> None:
        if ticket.future.done():
            return  # dropped while it was decoded
        outcome: DecodedChunk | None
        if isinstance(decoded, DecodingFailed):
            outcome = ticket.finish_with_best()
            if outcome is None:
                self._stats = replace(self._stats, failures=self._stats.failures + 1)
                self._fail(ticket, decoded)
                return
        else:
            outcome = ticket.take(decoded, gate=self._settings.quality_gate)
        if outcome is None:
            self._requeue(ticket)
        else:
            ticket.future.set_result(outcome)

    def _requeue(self, ticket: PendingChunk) -> None:
        ticket.key = self._engine.batch_key(ticket.item)
        ticket.frames = self._engine.window_frames([ticket.item])
        ticket.deferred_until = self._number + 1 + (MAX_DEFERRED_BATCHES if ticket.may_defer else 0)
        self._stats = replace(self._stats, retries=self._stats.retries + 1)
        if ticket.reason == RECOVERY_REASON:
            self._metrics.count("uncovered_stretches")
        else:
            self._metrics.count("gated_chunks", reason=ticket.reason)
        insort(self._waiting, ticket, key=lambda waiting: waiting.order)

    def _fail_all(self, error: MurmurationError) -> None:
        with self._changed:
            for ticket in [*self._waiting, *self._running]:
                self._fail(ticket, error)
            self._waiting, self._running = [], []

    @staticmethod
    def _fail(ticket: PendingChunk, error: MurmurationError) -> None:
        if not ticket.future.done():
            ticket.future.set_exception(error)
