"""Cross-request batching: one thread decodes the chunks of all tasks on the replica, in batches.

A batch can't be interrupted, so priorities, cancels and new settings take effect between batches, and ``max_batch_s``
bounds how long that takes. While no urgent chunks arrive, a batch may take twice as long, since larger batches have a
higher throughput.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from bisect import insort
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from pipeline.asr.batch_cost import CostModel
from pipeline.asr.batch_selection import select_batch
from pipeline.asr.batch_stats import BatchStats
from pipeline.asr.engine import FRAMES_PER_SECOND, Decoded, DecodeItem, Engine
from pipeline.asr.pending_chunk import RECOVERY_REASON, DecodedChunk, PendingChunk
from pipeline.errors import DecodingFailed, MurmurationError, ReplicaLost, TaskCancelled
from pipeline.ports import Metrics, NullMetrics
from pipeline.settings import BatchSettings

logger = logging.getLogger(__name__)

URGENCY_WINDOW_S = 300.0
"""How long batches are kept short after a chunk arrived that was more urgent than another one here."""
RELAXED_FACTOR = 2.0
"""Factor by which a batch may exceed ``max_batch_s`` while batches need not be short."""
MAX_DEFERRED_BATCHES = 4
"""How many batches of its rank a rejected chunk lets go first, so that retries can share a batch. Few chunks are
rejected, and each would otherwise be decoded in a batch of its own."""


class MicroBatcher:
    """The queue of a replica, whose own thread decodes chunks of all tasks in batches, by priority and age.

    Args:
        engine: decodes the batches.
        settings: sizes and times; ``reconfigure`` changes them.
        clock: monotonic seconds, to measure batches.
        metrics: records every batch, on the inference thread.
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
        self._metrics = metrics or NullMetrics()
        self._cost = CostModel()
        self._fitting_rows: int | None = None
        self._changed = threading.Condition()
        self._sequence = itertools.count()
        self._waiting: list[PendingChunk] = []
        self._running: list[PendingChunk] = []
        self._batch_number = 0
        self._stats = BatchStats()
        self._closed = False
        self._broken = False
        self._decoding_since: float | None = None
        self._overtaken_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> MicroBatcher:
        """Start the inference thread. Chunks that were submitted before are decoded then."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop after the running batch; chunks still in line fail with ``ReplicaLost``."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._fail_all(ReplicaLost("The replica shut down before it decoded this audio."))

    @property
    def healthy(self) -> bool:
        """``True`` while submitted chunks are decoded. Once ``False``, it stays so: the process must be replaced."""
        return not self._closed and not self._broken

    @property
    def decoding_s(self) -> float:
        """Seconds since the running batch began; 0 between batches."""
        since = self._decoding_since
        return 0.0 if since is None else self._clock() - since

    @property
    def settings(self) -> BatchSettings:
        """The settings in force."""
        return self._settings

    def reconfigure(self, settings: BatchSettings) -> None:
        """Change sizes and times from the next batch on."""
        with self._changed:
            self._settings = settings
            self._fitting_rows = None
            self._changed.notify_all()

    def stats(self) -> BatchStats:
        """Return a snapshot of the counters."""
        with self._changed:
            return replace(self._stats, waiting=len(self._waiting))

    def submit(self, items: Iterable[DecodeItem], *, rank: int, start_tag: float) -> list[PendingChunk]:
        """Queue chunks, all at once, so that they can share the next batch.

        Args:
            items: the first decoding of each chunk.
            rank: rank of their priority; 0 is served first.
            start_tag: their start tag; among equal ranks, the lowest is served first.

        Returns:
            A pending chunk for each item, in order. Its ``future`` gets the ``DecodedChunk``, or ``DecodingFailed``,
            ``TaskCancelled`` or ``ReplicaLost``. Futures are resolved on the inference thread. They can't be cancelled;
            ``withdraw`` the chunk instead.
        """
        chunks = [self._to_pending_chunk(item, rank, start_tag) for item in items]
        with self._changed:
            self._record_urgency(chunks)
            for chunk in chunks:
                if self.healthy:
                    insort(self._waiting, chunk, key=lambda waiting: waiting.order)
                else:
                    chunk.future.set_exception(ReplicaLost("The replica can't decode any more."))
            self._changed.notify_all()
        return chunks

    def _record_urgency(self, arriving: Sequence[PendingChunk]) -> None:
        """Record the time if a chunk arrives that goes before another one here."""
        last = max((chunk.rank for chunk in [*self._running, *self._waiting[-1:]]), default=0)
        if any(chunk.rank < last for chunk in arriving):
            self._overtaken_at = self._clock()

    @property
    def _max_batch_s(self) -> float:
        urgent = self._overtaken_at is not None and self._clock() - self._overtaken_at < URGENCY_WINDOW_S
        return self._settings.max_batch_s * (1.0 if urgent else RELAXED_FACTOR)

    def withdraw(self, chunks: Collection[PendingChunk]) -> None:
        """Fail these chunks with ``TaskCancelled``; results of chunks that are being decoded are discarded."""
        with self._changed:
            for chunk in (chunk for chunk in [*self._waiting, *self._running] if chunk in chunks):
                self._fail(chunk, TaskCancelled("The task was cancelled."))
            self._waiting = [chunk for chunk in self._waiting if not chunk.future.done()]

    def _to_pending_chunk(self, item: DecodeItem, rank: int, start_tag: float) -> PendingChunk:
        chunk = PendingChunk(
            rank=rank,
            age=(start_tag, next(self._sequence)),
            item=item,
            key=self._engine.batch_key(item),
            frames=self._engine.window_frames([item]),
        )
        # A running future can't be cancelled: only the batcher resolves it.
        chunk.future.set_running_or_notify_cancel()
        return chunk

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
        """Wait for chunks and return the next batch; empty if the batcher is closed."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._changed.wait_for(self._stop_waiting, timeout=self._settings.batch_wait_s)
            if self._closed:
                return []
            self._batch_number += 1
            rows = min(self._settings.max_batch_size, self._fitting_rows or self._settings.max_batch_size)
            self._running = select_batch(self._waiting, rows, self._max_batch_s, self._cost, self._batch_number)
            self._waiting = [chunk for chunk in self._waiting if chunk not in self._running]
            return self._running

    def _stop_waiting(self) -> bool:
        return self._closed or len(self._waiting) != 1 or self._waiting[0].rank == 0

    def _process(self, batch: list[PendingChunk]) -> None:
        for chunk, decoded in zip(batch, self._decode(batch), strict=True):
            with self._changed:
                self._record_result(chunk, decoded)
        with self._changed:
            self._running = []

    def _decode(self, batch: Sequence[PendingChunk]) -> list[Decoded | DecodingFailed]:
        """Decode a batch, in halves if it does not fit into memory; if it fails, decode its chunks one by one.

        So a defective chunk fails alone.
        """
        items = [chunk.item for chunk in batch]
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
                return [DecodingFailed("The model could not decode this chunk.")]
            return [result for chunk in batch for result in self._decode([chunk])]
        finally:
            self._decoding_since = None
        seconds = self._clock() - started
        self._cost.observe(len(items), frames, seconds, cost_factor)
        self._record_batch(items, frames, seconds)
        return decoded

    def _decode_halves(self, batch: Sequence[PendingChunk]) -> list[Decoded | DecodingFailed]:
        if len(batch) == 1:
            return [DecodingFailed("The device's memory is too small to decode this chunk.")]
        half = len(batch) // 2
        logger.warning("a batch of %d chunks does not fit into memory; it is halved", len(batch))
        self._fitting_rows = half
        return self._decode(batch[:half]) + self._decode(batch[half:])

    def _record_batch(self, items: Sequence[DecodeItem], frames: int, seconds: float) -> None:
        audio_s, window_s = sum(item.duration_s for item in items), frames / FRAMES_PER_SECOND
        self._metrics.observe("batch_size", len(items))
        self._metrics.observe("batch_fill", min(1.0, len(items) / self._settings.max_batch_size))
        self._metrics.observe("window_seconds", window_s)
        self._metrics.observe("batch_seconds", seconds)
        self._metrics.count("audio_seconds", audio_s)
        with self._changed:
            self._stats = self._stats.after_batch(len(items), audio_s, len(items) * window_s, seconds)

    def _record_result(self, chunk: PendingChunk, decoded: Decoded | DecodingFailed) -> None:
        if chunk.future.done():
            return  # withdrawn while it was decoded
        result: DecodedChunk | None
        if isinstance(decoded, DecodingFailed):
            result = chunk.finish_with_best()
            if result is None:
                self._stats = replace(self._stats, failures=self._stats.failures + 1)
                self._fail(chunk, decoded)
                return
        else:
            result = chunk.record(decoded, gate=self._settings.quality_gate)
        if result is None:
            self._requeue(chunk)
        else:
            chunk.future.set_result(result)

    def _requeue(self, chunk: PendingChunk) -> None:
        chunk.key = self._engine.batch_key(chunk.item)
        chunk.frames = self._engine.window_frames([chunk.item])
        chunk.deferred_until = self._batch_number + 1 + (MAX_DEFERRED_BATCHES if chunk.may_defer else 0)
        self._stats = replace(self._stats, retries=self._stats.retries + 1)
        if chunk.reason == RECOVERY_REASON:
            self._metrics.count("uncovered_stretches")
        else:
            self._metrics.count("gated_chunks", reason=chunk.reason)
        insort(self._waiting, chunk, key=lambda waiting: waiting.order)

    def _fail_all(self, error: MurmurationError) -> None:
        with self._changed:
            for chunk in [*self._waiting, *self._running]:
                self._fail(chunk, error)
            self._waiting, self._running = [], []

    @staticmethod
    def _fail(chunk: PendingChunk, error: MurmurationError) -> None:
        if not chunk.future.done():
            chunk.future.set_exception(error)
