from concurrent.futures import wait
from dataclasses import replace

import pytest

from pipeline.asr.batcher import MAX_DEFERRED_BATCHES
from pipeline.errors import DecodingFailed, ReplicaLost, TaskCancelled
from pipeline.settings import BatchSettings
from pipeline.testing.fake_engine import FakeEngine
from pipeline.testing.recording_metrics import RecordingMetrics

TIMEOUT_S = 10.0


def outcomes(tickets):
    """What came of each: an ``Outcome`` or the error."""
    wait([ticket.future for ticket in tickets], TIMEOUT_S)
    return [ticket.future.exception(0) or ticket.future.result(0) for ticket in tickets]


def text(outcome):
    return " ".join(segment.text.strip() for segment in outcome.segments)


def mark(item):
    return int(item.features[0, 0])


def marks(engine):
    return [[mark(item) for item in batch] for batch in engine.batches]


@pytest.fixture
def busy(start, submission):
    """A batcher with a batch under way, so that all that is submitted meets in the line."""

    def make(engine, **settings):
        batcher = start(engine, **settings)
        engine.hold()
        batcher.submit([submission(99, task_id=99, rank=0)])
        assert engine.entered.wait(TIMEOUT_S)
        engine.batches.clear()
        return batcher

    return make


def test_chunks_of_different_tasks_share_a_batch(busy, submission):
    engine = FakeEngine()
    batcher = busy(engine)
    tickets = [ticket for task in range(4) for ticket in batcher.submit([submission(task, task_id=task)])]
    engine.release()
    texts = [text(outcome) for outcome in outcomes(tickets)]
    assert marks(engine) == [[0, 1, 2, 3]]
    assert len(set(texts)) == 4


def test_urgent_chunks_go_first_then_older_ones(busy, submission):
    engine = FakeEngine()
    batcher = busy(engine, max_batch_size=1)
    tickets = batcher.submit(
        [
            submission(1, rank=2, age=1.0),
            submission(2, rank=1, age=9.0),
            submission(3, rank=1, age=3.0),
            submission(4, rank=0, age=99.0),
        ]
    )
    engine.release()
    outcomes(tickets)
    assert marks(engine) == [[4], [3], [2], [1]]


def test_batches_are_short_for_a_while_after_a_chunk_that_goes_before_another(busy, submission):
    batcher = busy(engine := FakeEngine(), max_batch_s=1.5)
    batcher.submit([submission(1, rank=2), submission(2, rank=2)])  # behind one of rank 0
    assert batcher._max_batch_s == 3.0
    tickets = batcher.submit([submission(3, rank=1)])
    assert batcher._max_batch_s == 1.5
    batcher._clock = lambda: 301.0
    assert batcher._max_batch_s == 3.0
    engine.release()
    outcomes(tickets)


def test_an_odd_one_does_not_starve(busy, submission):
    engine = FakeEngine()
    batcher = busy(engine, max_batch_size=4)
    odd = submission(7, seconds=28.0, age=0.0)
    tickets = batcher.submit([*(submission(1, age=1.0 + i) for i in range(8)), odd])
    engine.release()
    outcomes(tickets)
    assert marks(engine)[0][0] == 7


def looping(*bad):
    """A result that fails the gate for these marks, at whatever temperature."""
    return lambda item, decoded: replace(decoded, compression_ratio=9.0) if mark(item) in bad else decoded


def test_an_urgent_bad_decoding_is_tried_again_before_others(busy, submission):
    engine = FakeEngine(result=looping(1))
    batcher = busy(engine, max_batch_size=1)
    tickets = batcher.submit([submission(1, rank=0, age=1.0), submission(2, rank=0, age=2.0)])
    engine.release()
    first, second = outcomes(tickets)
    assert marks(engine) == [[1]] * 7 + [[2]]
    assert [batch[0].full_window for batch in engine.batches][:3] == [False, True, False]
    assert (first.attempts, second.attempts) == (7, 1)


def test_a_bad_decoding_waits_for_others_while_there_is_something_else_to_do(busy, submission):
    engine = FakeEngine(result=looping(1, 5))
    batcher = busy(engine, max_batch_size=3)
    tickets = batcher.submit([submission(number, age=number) for number in range(1, 7)])
    engine.release()
    outcomes(tickets)
    assert marks(engine) == [[1, 2, 3], [4, 5, 6], *[[1, 5]] * 6]


def test_a_bad_decoding_that_the_next_chunk_waits_for_does_not_wait(busy, submission):
    engine = FakeEngine(result=looping(1))
    batcher = busy(engine, max_batch_size=1)
    tickets = batcher.submit([submission(1, condition_on_previous_text=True), submission(2, age=2.0)])
    engine.release()
    outcomes(tickets)
    assert marks(engine)[-1] == [2]


def test_a_bad_decoding_lets_so_many_batches_go_first_and_no_more(busy, submission):
    engine = FakeEngine(result=looping(1))
    batcher = busy(engine, max_batch_size=2)
    tickets = batcher.submit([submission(number, age=number) for number in range(1, 41)])
    engine.release()
    outcomes(tickets)
    full, ladder = MAX_DEFERRED_BATCHES + 1, 2 * MAX_DEFERRED_BATCHES + 2
    assert [at for at, batch in enumerate(marks(engine)) if 1 in batch] == [0, full, *range(ladder, ladder + 5)]


DEAR = {"beam_size": 20, "best_of": 20, "log_prob_threshold": 0.0}


def test_a_chunk_with_dear_options_does_not_keep_the_replica_to_itself(busy, submission):
    engine = FakeEngine()
    batcher = busy(engine, max_batch_size=1)
    dear = batcher.submit([submission(1, condition_on_previous_text=True, **DEAR)])
    tickets = batcher.submit([submission(2), submission(3, age=30.0)])
    engine.release()
    outcomes([*dear, *tickets])
    order = [mark for [mark] in marks(engine)]
    assert order.count(1) == 7
    assert order.index(2) < order.index(3) < len(order) - 1
    assert order.index(2) <= 4


def test_so_many_texts_are_decoded_side_by_side_as_with_the_defaults(busy, submission):
    engine = FakeEngine()
    batcher = busy(engine, max_batch_size=8, max_batch_s=100.0)
    tickets = batcher.submit([submission(number, beam_size=20) for number in range(1, 9)])
    engine.release()
    outcomes(tickets)
    assert [len(batch) for batch in engine.batches] == [2, 2, 2, 2]


def test_retries_of_different_chunks_share_a_batch(busy, submission):
    def unlikely(item, decoded):
        return replace(decoded, avg_logprob=-2.0) if mark(item) < 9 and not item.temperature else decoded

    engine = FakeEngine(result=unlikely)
    batcher = busy(engine)
    found = outcomes_after_release(engine, batcher.submit([submission(1), submission(2), submission(3)]))
    assert [(len(batch), batch[0].temperature) for batch in engine.batches] == [(3, 0.0), (3, 0.0), (3, 0.2)]
    assert {outcome.segments[0].temperature for outcome in found} == {0.2}


def outcomes_after_release(engine, tickets):
    engine.release()
    return outcomes(tickets)


def test_the_gate_can_be_switched_off(start, submission):
    engine = FakeEngine(result=lambda _, decoded: replace(decoded, compression_ratio=9.0))
    [outcome] = outcomes(start(engine, quality_gate=False).submit([submission()]))
    assert outcome.attempts == 1


def test_a_batch_that_does_not_fit_is_halved_and_the_next_ones_fit(busy, submission):
    engine = FakeEngine(memory_rows=2)
    batcher = busy(engine)
    tickets = batcher.submit([submission(i) for i in range(12)])
    found = outcomes_after_release(engine, tickets)
    assert all(outcome.attempts == 1 for outcome in found)
    assert [len(batch) for batch in engine.batches] == [8, 4, 2, 2, 4, 2, 2, 2, 2]


def test_new_settings_forget_what_did_not_fit(busy, submission):
    engine = FakeEngine(memory_rows=2)
    batcher = busy(engine)
    outcomes_after_release(engine, batcher.submit([submission(i) for i in range(4)]))
    batcher.reconfigure(BatchSettings(max_batch_size=3, batch_wait_s=0))
    engine.hold()
    tickets = batcher.submit([submission(1)])
    assert engine.entered.wait(TIMEOUT_S)
    engine.batches.clear()
    tickets += batcher.submit([submission(i) for i in range(3)])
    outcomes_after_release(engine, tickets)
    assert [len(batch) for batch in engine.batches] == [3, 1, 2]


def test_a_chunk_that_never_fits_fails_alone(busy, submission):
    engine = FakeEngine(memory_rows=0)
    found = outcomes_after_release(engine, busy(engine).submit([submission(1), submission(2)]))
    assert [type(error) for error in found] == [DecodingFailed, DecodingFailed]
    assert "memory" in found[0].message


def test_one_bad_chunk_fails_alone(busy, submission):
    engine = FakeEngine(fault=lambda item: RuntimeError("axis 7") if mark(item) == 2 else None)
    batcher = busy(engine)
    found = outcomes_after_release(engine, batcher.submit([submission(i) for i in range(4)]))
    assert [isinstance(outcome, DecodingFailed) for outcome in found] == [False, False, True, False]
    assert "axis" not in str(found[2])
    assert batcher.healthy
    assert batcher.stats().failures == 1


def test_a_chunk_the_engine_refuses_fails_with_its_reason(start, submission):
    engine = FakeEngine(result=lambda *_: DecodingFailed("No such language."))
    [error] = outcomes(start(engine).submit([submission()]))
    assert error.message == "No such language."


def test_the_result_of_a_withdrawn_chunk_is_thrown_away(start, submission):
    engine = FakeEngine()
    batcher = start(engine)
    engine.hold()
    [ticket] = batcher.submit([submission(task_id=5)])
    assert engine.entered.wait(TIMEOUT_S)
    batcher.withdraw([ticket])
    assert isinstance(ticket.future.exception(0), TaskCancelled)
    [later] = outcomes_after_release(engine, batcher.submit([submission(task_id=6)]))
    assert later.attempts == 1


def test_withdrawn_chunks_leave_the_task_s_others(busy, submission):
    engine = FakeEngine()
    batcher = busy(engine)
    gone, kept = batcher.submit([submission(1, task_id=5)]), batcher.submit([submission(2, task_id=5)])
    batcher.withdraw(gone)
    outcomes_after_release(engine, kept)
    assert marks(engine) == [[2]]


def test_settings_change_between_batches(busy, submission):
    engine = FakeEngine()
    batcher = busy(engine, max_batch_size=8)
    tickets = batcher.submit([submission(i) for i in range(4)])
    batcher.reconfigure(BatchSettings(max_batch_size=2))
    outcomes_after_release(engine, tickets)
    assert [len(batch) for batch in engine.batches] == [2, 2]
    assert batcher.settings.max_batch_size == 2


def test_a_lone_chunk_waits_for_company(start, submission):
    engine = FakeEngine()
    batcher = start(engine, batch_wait_s=5)
    first = batcher.submit([submission(1)])
    assert not engine.entered.wait(0.02)
    second = batcher.submit([submission(2)])
    outcomes([*first, *second])
    assert marks(engine) == [[1, 2]]


def test_an_urgent_chunk_does_not_wait(start, submission):
    engine = FakeEngine()
    [outcome] = outcomes(start(engine, batch_wait_s=5).submit([submission(rank=0)]))
    assert outcome.attempts == 1


class Defective(FakeEngine):
    """Raises where nobody expects it, once ``broken``."""

    broken = False

    def window_frames(self, items):
        if self.broken:
            raise ValueError("a defect")
        return super().window_frames(items)


def dies(batcher, tickets, submission):
    """Whether all that was and is submitted fails, and the batcher says so."""
    late = batcher.submit([submission()]) if outcomes(tickets) else []
    return not batcher.healthy and {type(error) for error in outcomes([*tickets, *late])} == {ReplicaLost}


def test_a_failed_device_is_loud(busy, submission, caplog):
    engine = FakeEngine(fault=lambda item: ReplicaLost("The GPU has failed.") if mark(item) < 9 else None)
    batcher = busy(engine)
    tickets = batcher.submit([submission(1), submission(2)])
    engine.release()
    assert dies(batcher, tickets, submission)
    assert "inference thread has died" in caplog.text


def test_a_defect_on_the_inference_thread_is_loud(busy, submission, caplog):
    engine = Defective()
    batcher = busy(engine)
    tickets = batcher.submit([submission(1), submission(2)])
    engine.broken = True
    engine.release()
    outcomes(tickets)
    engine.broken = False
    assert dies(batcher, tickets, submission)
    assert "inference thread has died" in caplog.text


def test_closing_fails_what_still_waits(start, submission):
    engine = FakeEngine()
    batcher = start(engine, running=False)
    [ticket] = batcher.submit([submission()])
    batcher.close()
    assert isinstance(ticket.future.exception(0), ReplicaLost)
    assert not batcher.healthy


def test_figures_are_measured_and_told(start, submission):
    engine, metrics = FakeEngine(), RecordingMetrics()
    batcher = start(engine, running=False, metrics=metrics)
    tickets = batcher.submit([submission(1, seconds=10.0), submission(2, seconds=9.0)])
    batcher.start()
    outcomes(tickets)
    batcher.close()
    stats = batcher.stats()
    assert (stats.batches, stats.chunks, stats.audio_s, stats.window_s) == (1, 2, 19.0, 24.0)
    assert metrics.values("batch_size") == [2]
    assert metrics.total("audio_seconds") == 19.0


def test_retries_are_counted_by_reason(start, submission):
    metrics = RecordingMetrics()
    engine = FakeEngine(
        result=lambda item, decoded: replace(decoded, compression_ratio=1.0 if item.full_window else 9.0)
    )
    batcher = start(engine, metrics=metrics)
    outcomes(batcher.submit([submission()]))
    assert batcher.stats().retries == 1
    assert metrics.total("gated_chunks", reason="repetitive") == 1


def test_a_future_can_not_be_cancelled_behind_the_batcher_s_back(start, submission):
    batcher = start(FakeEngine(), running=False)
    [ticket] = batcher.submit([submission()])
    assert not ticket.future.cancel()


def test_a_batch_that_hangs_shows(busy):
    engine = FakeEngine()
    batcher = busy(engine)
    batcher._clock = lambda: 700.0
    assert batcher.decoding_s == 700.0
    engine.release()
    batcher.close()
    assert batcher.decoding_s == 0
