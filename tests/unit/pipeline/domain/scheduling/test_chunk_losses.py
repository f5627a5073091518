from __future__ import annotations

from pipeline.domain.scheduling.chunk_losses import ChunkLosses, LossDecision
from pipeline.testing.fake_splitter import make_chunks

CHUNKS = tuple(make_chunks(3))


def lose(losses: ChunkLosses, *, task_id: int = 1, suspect: bool = False, accepted: bool = True) -> LossDecision:
    return losses.count(task_id, 1, CHUNKS[:1] if suspect else CHUNKS, suspect=suspect, accepted=accepted)


def test_chunks_of_a_lost_replica_are_queued_again() -> None:
    assert lose(ChunkLosses(3)) == LossDecision(retried=CHUNKS, suspects=(), exhausted=())


def test_chunks_that_lost_two_replicas_are_suspects_and_sent_one_at_a_time() -> None:
    losses = ChunkLosses(3)
    lose(losses)
    assert lose(losses) == LossDecision(retried=(), suspects=CHUNKS, exhausted=())
    assert losses.has_suspect(1)
    first = losses.next_suspect()
    assert first is not None
    assert (first.task_id, first.priority_rank, first.chunk) == (1, 1, CHUNKS[0])
    assert losses.next_suspect() is None
    losses.end_suspect()
    second = losses.next_suspect()
    assert second is not None
    assert second.chunk == CHUNKS[1]


def test_a_suspect_waits_again_until_its_losses_are_too_many() -> None:
    losses = ChunkLosses(4)
    lose(losses)
    lose(losses)
    assert losses.next_suspect() is not None
    assert lose(losses, suspect=True).suspects == CHUNKS[:1]
    assert lose(losses, suspect=True).exhausted == ((CHUNKS[0], 4),)


def test_a_suspect_that_no_replica_accepted_waits_again_without_blame() -> None:
    losses = ChunkLosses(1)
    assert lose(losses, suspect=True, accepted=False) == LossDecision(retried=(), suspects=CHUNKS[:1], exhausted=())


def test_a_unit_that_no_replica_accepted_is_not_blamed() -> None:
    losses = ChunkLosses(1)
    for _ in range(5):
        assert lose(losses, accepted=False) == LossDecision(retried=CHUNKS, suspects=(), exhausted=())


def test_only_the_suspect_is_blamed_while_it_is_at_a_replica() -> None:
    losses = ChunkLosses(5)
    lose(losses)
    lose(losses)
    assert losses.next_suspect() is not None
    for _ in range(5):
        assert lose(losses, task_id=2).retried == CHUNKS
    losses.end_suspect()
    lose(losses, task_id=2)
    assert lose(losses, task_id=2).suspects == CHUNKS


def test_a_chunk_with_a_result_starts_anew() -> None:
    losses = ChunkLosses(3)
    lose(losses)
    losses.forget_chunk(1, 0)
    assert lose(losses) == LossDecision(retried=CHUNKS[:1], suspects=CHUNKS[1:], exhausted=())


def test_a_closed_task_leaves_nothing_behind() -> None:
    losses = ChunkLosses(3)
    lose(losses)
    lose(losses)
    losses.forget_task(1)
    assert not losses.has_suspect(1)
    assert losses.next_suspect() is None
    assert lose(losses).retried == CHUNKS
