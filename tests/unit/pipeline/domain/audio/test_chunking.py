from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.audio.chunking import MAX_EXTENT, ChunkPlanner
from pipeline.domain.audio.spans import Span, to_samples
from pipeline.domain.audio.speech import FRAME_SAMPLES, merge_touching
from tests.support.thoroughness import examples

LONGEST = to_samples(15)

# Gap before, then length, in frames.
gaps_and_lengths = st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 1500)), max_size=25)


def laid_out(pairs: list[tuple[int, int]]) -> list[Span]:
    spans, position = [], 0
    for gap, length in pairs:
        spans.append(Span((position + gap) * FRAME_SAMPLES, (position + gap + length) * FRAME_SAMPLES))
        position += gap + length
    return spans


def scores_for(spans: list[Span], seed: int = 0) -> np.ndarray:
    frames = spans[-1].end // FRAME_SAMPLES + 1 if spans else 0
    return np.random.default_rng(seed).random(frames, dtype=np.float32)


def plan(
    spans: list[Span], longest: int = LONGEST, scores: np.ndarray | None = None, start: int = 0
) -> list[tuple[Span, ...]]:
    planner = ChunkPlanner(longest, start)
    return planner.add(spans, scores_for(spans) if scores is None else scores) + planner.finish()


def seconds(chunks: list[tuple[Span, ...]]) -> list[float]:
    return [sum(span.duration_s for span in chunk) for chunk in chunks]


@settings(max_examples=examples(50))
@given(gaps_and_lengths, st.sampled_from([1, 5, 15, 30]))
def test_chunks_hold_all_speech_in_order_and_none_is_too_long(pairs: list[tuple[int, int]], longest_s: int) -> None:
    spans = laid_out(pairs)
    longest = to_samples(longest_s)
    chunks = plan(spans, longest)
    assert merge_touching(span for chunk in chunks for span in chunk) == merge_touching(spans)
    assert all(sum(span.samples for span in chunk) <= longest for chunk in chunks)
    assert all(chunk[-1].end - chunk[0].start <= MAX_EXTENT + 2 * longest for chunk in chunks)
    assert all(span.samples > 0 for chunk in chunks for span in chunk)


@settings(max_examples=examples(50))
@given(gaps_and_lengths, st.lists(st.integers(1, 400), min_size=1))
def test_chunks_do_not_depend_on_how_the_speech_arrives(pairs: list[tuple[int, int]], block_frames: list[int]) -> None:
    spans = laid_out(pairs)
    scores = scores_for(spans)
    planner, chunks, heard, turn = ChunkPlanner(LONGEST), [], 0, 0
    while heard < len(scores):
        size = block_frames[turn % len(block_frames)]
        window = Span(heard * FRAME_SAMPLES, (heard + size) * FRAME_SAMPLES)
        pieces = [Span(max(s.start, window.start), min(s.end, window.end)) for s in spans]
        chunks += planner.add([p for p in pieces if p.samples > 0], scores[heard : heard + size], window.end)
        heard, turn = heard + size, turn + 1
    assert chunks + planner.finish() == plan(spans, scores=scores)


@settings(max_examples=examples(50))
@given(gaps_and_lengths, st.integers(0, 24))
def test_resuming_where_speech_waits_gives_the_chunks_that_follow(
    pairs: list[tuple[int, int]], stop_after: int
) -> None:
    spans = laid_out(pairs)
    scores = scores_for(spans)
    planner = ChunkPlanner(LONGEST)
    before = planner.add(spans[: stop_after + 1], scores)
    waiting = planner.pending_start
    after = planner.add(spans[stop_after + 1 :], scores[:0]) + planner.finish()
    resumed = plan(spans, scores=scores, start=(spans[-1].end if spans else 0) if waiting is None else waiting)
    assert resumed == after
    assert before + after == plan(spans, scores=scores)


def test_a_run_ends_in_even_chunks_instead_of_a_stub() -> None:
    lengths = seconds(plan([Span(0, to_samples(15.5))]))
    assert len(lengths) == 2
    assert min(lengths) > 3.5
    lengths = seconds(plan([Span(0, to_samples(60.5))]))
    assert min(lengths) > 3.5


def test_long_speech_is_cut_at_its_quietest_moment_in_the_later_half() -> None:
    span = Span(0, to_samples(40))
    scores = np.ones(span.end // FRAME_SAMPLES + 1, np.float32)
    quiet = to_samples(11) // FRAME_SAMPLES
    scores[quiet - 2 : quiet + 3] = 0.2
    scores[to_samples(3) // FRAME_SAMPLES] = 0.0  # quieter, but too early
    first, *_ = plan([span], scores=scores)
    assert first == (Span(0, quiet * FRAME_SAMPLES + FRAME_SAMPLES // 2),)


def test_a_chunk_is_filled_to_the_last_pause_that_fits() -> None:
    spans = [Span(to_samples(i * 7), to_samples(i * 7 + 6)) for i in range(8)]
    assert seconds(plan(spans)) == [12.0, 12.0, 12.0, 12.0]


def test_speech_that_lies_far_apart_is_not_packed_together() -> None:
    spans = [Span(0, 16000), Span(MAX_EXTENT + 16000, MAX_EXTENT + 32000)]
    assert plan(spans) == [(spans[0],), (spans[1],)]


def test_speech_does_not_wait_for_company_that_can_not_come() -> None:
    planner = ChunkPlanner(LONGEST)
    lone = Span(16000, 32000)
    frames = np.zeros(MAX_EXTENT // FRAME_SAMPLES, np.float32)
    assert planner.add([lone], frames, settled=MAX_EXTENT) == []
    assert planner.pending_start == lone.start
    assert planner.add([], frames, settled=MAX_EXTENT + 16001) == [(lone,)]
    assert planner.pending_start is None


def test_no_speech_is_no_chunk() -> None:
    assert plan([]) == []
