"""Splitting that continues after the death of a Splitter process."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from typing_extensions import override

from pipeline.domain.audio.spans import to_seconds
from pipeline.domain.scheduling.fair_queue import SlotLimits, TurnRequest
from pipeline.domain.tasks.exhaustion import splitting_message
from pipeline.errors import AttemptsExhausted, ReplicaLost
from pipeline.fair_slots import FairSlots
from pipeline.ports import Clock, SplitDone, SplitPart, SplitRequest, Splitter
from pipeline.usecases.outage_retry import REPLICA_LOSS_PAUSE_S

logger = logging.getLogger(__name__)


class ResumableSplitter(Splitter):
    """A ``Splitter`` that continues after the process of another splitter has died.

    It repeats the request from the end of the last part that it yielded. The caller must store each part before it
    asks for the next. Chunks of earlier parts can be decoded meanwhile.

    A process may have been splitting several recordings when it died. Until they make progress, these are split one at
    a time, so that a recording that kills its process does not affect the others again.

    Args:
        splitter: the splitter whose process may die.
        clock: times the pause before a request is repeated.
        max_losses: after this many losses in a row without a part in between, the recording counts as the cause.
    """

    def __init__(self, splitter: Splitter, clock: Clock, max_losses: int) -> None:
        self._splitter = splitter
        self._clock = clock
        self._max_losses = max_losses
        self._suspects = FairSlots(SlotLimits(1), clock)

    @override
    async def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        """Yield the parts in order, then one ``SplitDone``.

        Raises:
            AttemptsExhausted: the process died ``max_losses`` times in a row; never ``ReplicaLost``.
            MediaError, StorageFull: as in ``Splitter.split``.
        """
        losses = 0
        while True:
            try:
                async with AsyncExitStack() as alone, aclosing(self._splitter.split(request)) as events:
                    if losses:
                        await alone.enter_async_context(self._suspects.turn(_turn_request(request)))
                    async for event in events:
                        await alone.aclose()  # it has made progress, so it need not run alone any more
                        yield event
                        if isinstance(event, SplitDone):
                            return
                        request, losses = request.after(event), 0
                raise ReplicaLost("The Splitter's stream ended before the recording did.")
            except ReplicaLost as error:
                losses += 1
                logger.warning("a Splitter was lost: %s", error, extra={"task_id": request.task_id, "losses": losses})
                if losses >= self._max_losses:
                    raise AttemptsExhausted(splitting_message(losses, to_seconds(request.resume_at))) from error
            await self._clock.sleep(REPLICA_LOSS_PAUSE_S)


def _turn_request(request: SplitRequest) -> TurnRequest:
    """Request a turn whose size is the samples to be decoded again before the split makes progress."""
    return TurnRequest(request.share_key, request.priority_rank, size=request.resume_at)
