"""A splitter that outlives the processes it runs in."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from pipeline.domain.audio.spans import to_samples, to_seconds
from pipeline.domain.scheduling.fair_queue import SlotLimits, TurnRequest
from pipeline.errors import AttemptsExhausted, ReplicaLost
from pipeline.fair_slots import FairSlots
from pipeline.ports import Clock, SplitDone, SplitPart, SplitRequest, Splitter

logger = logging.getLogger(__name__)

LOSS_PAUSE_S = 0.5
"""Pause before another Splitter is asked: until then the dead one may still be taken for alive."""


PAUSE_AFTER_S = 600.0
"""Shorter recordings are never paused."""

PAUSE_GROWTH = 3
"""How many times as far a split must get before it is paused once more."""


def may_pause(began_at: int, reached: int) -> bool:
    """Return whether a split may make room for another at the end of a part.

    When it is resumed, it is decoded again up to there. As each pause comes ``PAUSE_GROWTH`` times as far into the
    recording as the one before, all that is decoded again is less than half as much again as the recording.

    Args:
        began_at: where its parts began this time, in samples.
        reached: where they end now.
    """
    return reached >= max(PAUSE_GROWTH * began_at, to_samples(PAUSE_AFTER_S))


class ResumableSplitter:
    """A ``Splitter`` over another that may be lost: it is asked again, from the last part on that was given out.

    A process may have had several recordings in hand when it died. Until they get further they are split one at a time,
    so that the one to blame takes no other down again. Chunks of earlier parts are decoded meanwhile. Whoever takes the
    parts stores each before asking for the next.

    Args:
        splitter: the one that may be lost.
        clock: for the pause before it is asked again.
        max_losses: so many losses in a row without a part in between are the recording's own fault.
    """

    def __init__(self, splitter: Splitter, clock: Clock, max_losses: int) -> None:
        self._splitter = splitter
        self._clock = clock
        self._max_losses = max_losses
        self._suspects = FairSlots(SlotLimits(1), clock)

    async def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        """See ``ports.Splitter.split``. Raises ``AttemptsExhausted`` instead of ``ReplicaLost``."""
        losses = 0
        while True:
            try:
                async with AsyncExitStack() as alone, aclosing(self._splitter.split(request)) as events:
                    if losses:
                        await alone.enter_async_context(self._suspects.turn(_turn_request(request)))
                    async for event in events:
                        await alone.aclose()  # it got further: no suspect any more
                        yield event
                        if isinstance(event, SplitDone):
                            return
                        request, losses = request.after(event), 0
                raise ReplicaLost("A Splitter ended its answer in the middle.")
            except ReplicaLost as error:
                losses += 1
                logger.warning("Splitter lost: %s", error, extra={"task_id": request.task_id, "losses": losses})
                if losses >= self._max_losses:
                    raise AttemptsExhausted(_poison_sentence(request, losses)) from error
            await self._clock.sleep(LOSS_PAUSE_S)


def _turn_request(request: SplitRequest) -> TurnRequest:
    """What is left of a recording is decoded from its start: one that had got far takes long."""
    return TurnRequest(request.share_key, request.priority_rank, size=request.resume_at)


def _poison_sentence(request: SplitRequest, losses: int) -> str:
    return (
        f"The recording took down the process that prepared it {losses} times in a row, "
        f"with the first {to_seconds(request.resume_at):.0f} seconds of it done."
    )
