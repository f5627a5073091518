from concurrent.futures import wait
from dataclasses import replace

import pytest

from pipeline.asr.batcher import MAX_DEFERRED_BATCHES
from pipeline.errors import DecodingFailed, ReplicaLost, TaskCancelled
from pipeline.settings import BatchSettings
from pipeline.testing.fake_engine import FakeEngine
from pipeline.testing.recording_metrics import RecordingMetrics

TIMEOUT_S = 10.0


def results_of(chunks):
    """Wait for the chunks; return for each its ``DecodedChunk`` or the error."""
    wait([chunk.future for chunk in chunks], TIMEOUT_S)
    return [chunk.future.exception(0) or chunk.future.result(0) for chunk in chunks]


def text(result):
    return " ".join(segment.text.strip() for segment in result.segments)


def mark(item):
    return int(item.features[0, 0])


def marks(engine):
    return [[mark(item) for item in batch] for batch in engine.batches]


@pytest.fixture
def busy(start, submit):
    """A factory of batchers with a running batch, so that all submitted chunks wait together."""

    def make(engine, **settings):
        batcher = start(engine, **settings)
        engine.pause()
        submit(batcher, 99, rank=0)
        assert engine.entered.wait(TIMEOUT_S)
        engine.batches.clear()
        return batcher

    return make


def test_chunks_of_different_tasks_share_a_batch(busy, submit):
    engine = FakeEngine()
    batcher = busy(engine)
    chunks = [chunk for task in range(4) for chunk in submit(batcher, task)]
    engine.resume()
    texts = [text(result) for result in results_of(chunks)]
    assert marks(engine) == [[0, 1, 2, 3]]
    assert len(set(texts)) == 4


def test_urgent_chunks_go_first_then_older_ones(busy, submit):
    engine = FakeEngine()
    batcher = busy(engine, max_batch_size=1)
    chunks = [
        *submit(batcher, 1, rank=2, age=1.0),
        *submit(batcher, 2, rank=1, age=9.0),
        *submit(batcher, 3, rank=1, age=3.0),
        *submit(batcher, 4, rank=0, age=99.0),
    ]
    engine.resume()
    results_of(chunks)
    assert marks(engine) == [[4], [3], [2], [1]]


def test_batches_are_short_for_a_while_after_an_urgent_chunk(busy, submit):
    batcher = busy(engine := FakeEngine(), max_batch_s=1.5)
    submit(batcher, 1, 2, rank=2)  # behind one of rank 0
    assert batcher._max_batch_s == 3.0
    chunks = submit(batcher, 3, rank=1)
    assert batcher._max_batch_s == 1.5
    batcher._clock = lambda: 301.0
    assert batcher._max_batch_s == 3.0
    engine.resume()
    results_of(chunks)


def test_an_odd_one_does_not_starve(busy, submit):
    engine = FakeEngine()
    batcher = busy(engine, max_batch_size=4)
    chunks = [chunk for i in range(8) for chunk in submit(batcher, 1, age=1.0 + i)]
    chunks += submit(batcher, 7, seconds=28.0, age=0.0)
    engine.resume()
    results_of(chunks)
    assert marks(engine)[0][0] == 7


def looping(*bad):
    """Make a ``result`` that fails the quality gate for these marks, at every temperature."""
    return lambda item, decoded: replace(decoded, compression_ratio=9.0) if mark(item) in bad else decoded


def test_an_urgent_bad_decoding_is_tried_again_before_others(busy, submit):
    engine = FakeEngine(result=looping(1))
    batcher = busy(engine, max_batch_size=1)
    chunks = submit(batcher, 1, rank=0, age=1.0) + submit(batcher, 2, rank=0, age=2.0)
    engine.resume()
    first, second = results_of(chunks)
    assert marks(engine) == [[1]] * 7 + [[2]]
    assert [batch[0].full_window for batch in engine.batches][:3] == [False, True, False]
    assert (first.attempts, second.attempts) == (7, 1)


def test_a_bad_decoding_waits_for_others_while_there_is_something_else_to_do(busy, submit):
    engine = FakeEngine(result=looping(1, 5))
    batcher = busy(engine, max_batch_size=3)
    chunks = [chunk for number in range(1, 7) for chunk in submit(batcher, number, age=number)]
    engine.resume()
    results_of(chunks)
    assert marks(engine) == [[1, 2, 3], [4, 5, 6], *[[1, 5]] * 6]


def test_a_bad_decoding_that_the_next_chunk_waits_for_does_not_wait(busy, submit):
    engine = FakeEngine(result=looping(1))
    batcher = busy(engine, max_batch_size=1)
    chunks = submit(batcher, 1, condition_on_previous_text=True) + submit(batcher, 2, age=2.0)
    engine.resume()
    results_of(chunks)
    assert marks(engine)[-1] == [2]


def test_a_bad_decoding_lets_so_many_batches_go_first_and_no_more(busy, submit):
    engine = FakeEngine(result=looping(1))
    batcher = busy(engine, max_batch_size=2)
    chunks = [chunk for number in range(1, 41) for chunk in submit(batcher, number, age=number)]
    engine.resume()
    results_of(chunks)
    full, ladder = MAX_DEFERRED_BATCHES + 1, 2 * MAX_DEFERRED_BATCHES + 2
    assert [at for at, batch in enumerate(marks(engine)) if 1 in batch] == [0, full, *range(ladder, ladder + 5)]


DEAR = {"beam_size": 20, "best_of": 20, "log_prob_threshold": 0.0}


def test_a_chunk_with_dear_options_does_not_keep_the_replica_to_itself(busy, submit):
    engine = FakeEngine()
    batcher = busy(engine, max_batch_size=1)
    dear = submit(batcher, 1, condition_on_previous_text=True, **DEAR)
    chunks = submit(batcher, 2) + submit(batcher, 3, age=30.0)
    engine.resume()
    results_of([*dear, *chunks])
    order = [mark for [mark] in marks(engine)]
    assert order.count(1) == 7
    assert order.index(2) < order.index(3) < len(order) - 1
    assert order.index(2) <= 4


def test_so_many_texts_are_decoded_side_by_side_as_with_the_defaults(busy, submit):
    engine = FakeEngine()
    batcher = busy(engine, max_batch_size=8, max_batch_s=100.0)
    chunks = submit(batcher, *range(1, 9), beam_size=20)
    engine.resume()
    results_of(chunks)
    assert [len(batch) for batch in engine.batches] == [2, 2, 2, 2]


def test_retries_of_different_chunks_share_a_batch(busy, submit):
    def unlikely(item, decoded):
        return replace(decoded, avg_logprob=-2.0) if mark(item) < 9 and not item.temperature else decoded

    engine = FakeEngine(result=unlikely)
    batcher = busy(engine)
    results = results_after_release(engine, submit(batcher, 1, 2, 3))
    assert [(len(batch), batch[0].temperature) for batch in engine.batches] == [(3, 0.0), (3, 0.0), (3, 0.2)]
    assert {result.segments[0].temperature for result in results} == {0.2}


def results_after_release(engine, chunks):
    engine.resume()
    return results_of(chunks)


def test_the_gate_can_be_switched_off(start, submit):
    engine = FakeEngine(result=lambda _, decoded: replace(decoded, compression_ratio=9.0))
    [result] = results_of(submit(start(engine, quality_gate=False), 1))
    assert result.attempts == 1


def test_a_batch_that_does_not_fit_is_halved_and_the_next_ones_fit(busy, submit):
    engine = FakeEngine(memory_rows=2)
    batcher = busy(engine)
    chunks = submit(batcher, *range(12))
    results = results_after_release(engine, chunks)
    assert all(result.attempts == 1 for result in results)
    assert [len(batch) for batch in engine.batches] == [8, 4, 2, 2, 4, 2, 2, 2, 2]


def test_new_settings_forget_what_did_not_fit(busy, submit):
    engine = FakeEngine(memory_rows=2)
    batcher = busy(engine)
    results_after_release(engine, submit(batcher, *range(4)))
    batcher.reconfigure(BatchSettings(max_batch_size=3, batch_wait_s=0))
    engine.pause()
    chunks = submit(batcher, 1)
    assert engine.entered.wait(TIMEOUT_S)
    engine.batches.clear()
    chunks += submit(batcher, *range(3))
    results_after_release(engine, chunks)
    assert [len(batch) for batch in engine.batches] == [3, 1, 2]


def test_a_chunk_that_never_fits_fails_alone(busy, submit):
    engine = FakeEngine(memory_rows=0)
    results = results_after_release(engine, submit(busy(engine), 1, 2))
    assert [type(error) for error in results] == [DecodingFailed, DecodingFailed]
    assert "memory" in results[0].message


def test_one_bad_chunk_fails_alone(busy, submit):
    engine = FakeEngine(fault=lambda item: RuntimeError("axis 7") if mark(item) == 2 else None)
    batcher = busy(engine)
    results = results_after_release(engine, submit(batcher, *range(4)))
    assert [isinstance(result, DecodingFailed) for result in results] == [False, False, True, False]
    assert "axis" not in str(results[2])
    assert batcher.healthy
    assert batcher.stats().failures == 1


def test_a_chunk_the_engine_refuses_fails_with_its_reason(start, submit):
    engine = FakeEngine(result=lambda *_: DecodingFailed("No such language."))
    [error] = results_of(submit(start(engine), 1))
    assert error.message == "No such language."


def test_the_result_of_a_withdrawn_chunk_is_thrown_away(start, submit):
    engine = FakeEngine()
    batcher = start(engine)
    engine.pause()
    [chunk] = submit(batcher, 5)
    assert engine.entered.wait(TIMEOUT_S)
    batcher.withdraw([chunk])
    assert isinstance(chunk.future.exception(0), TaskCancelled)
    [later] = results_after_release(engine, submit(batcher, 6))
    assert later.attempts == 1


def test_withdrawn_chunks_leave_the_task_s_others(busy, submit):
    engine = FakeEngine()
    batcher = busy(engine)
    gone, kept = submit(batcher, 1), submit(batcher, 2)
    batcher.withdraw(gone)
    results_after_release(engine, kept)
    assert marks(engine) == [[2]]


def test_settings_change_between_batches(busy, submit):
    engine = FakeEngine()
    batcher = busy(engine, max_batch_size=8)
    chunks = submit(batcher, *range(4))
    batcher.reconfigure(BatchSettings(max_batch_size=2))
    results_after_release(engine, chunks)
    assert [len(batch) for batch in engine.batches] == [2, 2]
    assert batcher.settings.max_batch_size == 2


def test_a_lone_chunk_waits_for_further_chunks(start, submit):
    engine = FakeEngine()
    batcher = start(engine, batch_wait_s=5)
    first = submit(batcher, 1)
    assert not engine.entered.wait(0.02)
    second = submit(batcher, 2)
    results_of([*first, *second])
    assert marks(engine) == [[1, 2]]


def test_an_urgent_chunk_does_not_wait(start, submit):
    engine = FakeEngine()
    [result] = results_of(submit(start(engine, batch_wait_s=5), 1, rank=0))
    assert result.attempts == 1


class Defective(FakeEngine):
    """An engine that raises an unexpected error once ``broken``."""

    broken = False

    def window_frames(self, items):
        if self.broken:
            raise ValueError("a defect")
        return super().window_frames(items)


def dies(batcher, chunks, submit):
    """Return whether all chunks fail, submitted before or now, and the batcher is not healthy."""
    late = submit(batcher, 1) if results_of(chunks) else []
    return not batcher.healthy and {type(error) for error in results_of([*chunks, *late])} == {ReplicaLost}


def test_a_failed_device_fails_all_chunks(busy, submit, caplog):
    engine = FakeEngine(fault=lambda item: ReplicaLost("The GPU has failed.") if mark(item) < 9 else None)
    batcher = busy(engine)
    chunks = submit(batcher, 1, 2)
    engine.resume()
    assert dies(batcher, chunks, submit)
    assert "inference thread has died" in caplog.text


def test_a_defect_on_the_inference_thread_fails_all_chunks(busy, submit, caplog):
    engine = Defective()
    batcher = busy(engine)
    chunks = submit(batcher, 1, 2)
    engine.broken = True
    engine.resume()
    results_of(chunks)
    engine.broken = False
    assert dies(batcher, chunks, submit)
    assert "inference thread has died" in caplog.text


def test_closing_fails_what_still_waits(start, submit):
    engine = FakeEngine()
    batcher = start(engine, running=False)
    [chunk] = submit(batcher, 1)
    batcher.close()
    assert isinstance(chunk.future.exception(0), ReplicaLost)
    assert not batcher.healthy


def test_counters_and_metrics_are_updated(start, submit):
    engine, metrics = FakeEngine(), RecordingMetrics()
    batcher = start(engine, running=False, metrics=metrics)
    chunks = submit(batcher, 1, seconds=10.0) + submit(batcher, 2, seconds=9.0)
    batcher.start()
    results_of(chunks)
    batcher.close()
    stats = batcher.stats()
    assert (stats.batches, stats.chunks, stats.audio_s, stats.window_s) == (1, 2, 19.0, 24.0)
    assert metrics.values("batch_size") == [2]
    assert metrics.total("audio_seconds") == 19.0


def test_retries_are_counted_by_reason(start, submit):
    metrics = RecordingMetrics()
    engine = FakeEngine(
        result=lambda item, decoded: replace(decoded, compression_ratio=1.0 if item.full_window else 9.0)
    )
    batcher = start(engine, metrics=metrics)
    results_of(submit(batcher, 1))
    assert batcher.stats().retries == 1
    assert metrics.total("gated_chunks", reason="repetitive") == 1


def test_a_future_can_not_be_cancelled_behind_the_batcher_s_back(start, submit):
    batcher = start(FakeEngine(), running=False)
    [chunk] = submit(batcher, 1)
    assert not chunk.future.cancel()


def test_a_batch_that_hangs_shows(busy):
    engine = FakeEngine()
    batcher = busy(engine)
    batcher._clock = lambda: 700.0
    assert batcher.decoding_s == 700.0
    engine.resume()
    batcher.close()
    assert batcher.decoding_s == 0
