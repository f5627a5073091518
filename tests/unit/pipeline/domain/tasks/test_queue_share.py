from __future__ import annotations

import pytest

from pipeline.domain.tasks.client import QUEUE_RETRY_S, ClientLoad
from pipeline.domain.tasks.queue_share import refuse_over_share, share_of
from pipeline.errors import QuotaExceeded


@pytest.mark.parametrize(
    ("own", "all_queued", "refused"),
    [(0, 0, False), (888, 888, False), (889, 889, True), (900, 900, True), (10, 990, False), (0, 999, False)],
)
def test_a_client_leaves_room_for_others(own: int, all_queued: int, refused: bool) -> None:
    if not refused:
        refuse_over_share(ClientLoad(own), all_queued, 1000)
        return
    with pytest.raises(QuotaExceeded, match="the rest of the queue is for others") as caught:
        refuse_over_share(ClientLoad(own), all_queued, 1000)
    assert caught.value.retry_after_s == QUEUE_RETRY_S


def test_the_share_shrinks_with_the_room() -> None:
    assert [share_of(queued, 100) for queued in (0, 50, 99, 100, 200)] == [800, 400, 8, 0, 0]
