from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from itertools import pairwise
from typing import BinaryIO

import numpy as np
import pytest

from pipeline.domain.audio.spans import SAMPLE_RATE, part_key, to_samples
from pipeline.domain.audio.tracks import Track
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.errors import MediaTooLong, MediaUndecodable, NoAudioStream, StorageFull
from pipeline.media.audio_decoder import AudioDecoder
from pipeline.media.streaming_splitter import StreamingSplitter
from pipeline.ports import SplitDone, SplitPart, SplitRequest
from pipeline.settings import SplitSettings, VadSettings
from pipeline.testing.memory_media import MemoryMediaStore
from tests.support import recordings
from tests.support.recordings import encode, silence, stream, tone
from tests.support.thoroughness import some


class LoudnessActivity:
    """A detector that takes any loud sound for speech."""

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        return (np.abs(frames.astype(np.int32)).max(axis=1, initial=0) > 1000).astype(np.float32)


def no_activity():
    raise AssertionError("The request needs no voice activity detector.")


def splitter(store, activity=LoudnessActivity, max_duration_s=3600.0, part_s=60.0) -> StreamingSplitter:
    return StreamingSplitter(
        store,
        activity,
        VadSettings(),
        SplitSettings(part_s=part_s),
        lambda file, sound: AudioDecoder(file, max_duration_s, sound),
    )


def split_request(options: TranscriptionOptions | None = None, **changes) -> SplitRequest:
    request = SplitRequest(1, "t1/source", "t1", options or TranscriptionOptions(), max_chunk_s=15.0)
    return replace(request, **changes)


async def store_with(content: bytes) -> MemoryMediaStore:
    store = MemoryMediaStore()
    await store.write("t1/source", stream(content))
    return store


async def run(split: StreamingSplitter, request: SplitRequest) -> tuple[list[SplitPart], SplitDone]:
    *parts, done = [item async for item in split.split(request)]
    assert isinstance(done, SplitDone)
    return parts, done


@pytest.fixture(scope="module")
def conversation() -> np.ndarray:
    """A conversation of 240 s: turns of 1 to 20 s with pauses of 0.3 to 4 s."""
    source = np.random.default_rng(5)
    turns: list[np.ndarray] = []
    while sum(map(len, turns)) < 240 * SAMPLE_RATE:
        turns += [
            tone(source.uniform(1, 20), amplitude=int(source.integers(2000, 9000))),
            silence(source.uniform(0.3, 4)),
        ]
    return np.concatenate(turns)[: 240 * SAMPLE_RATE]


@pytest.fixture(scope="module")
def recorded(conversation) -> bytes:
    return encode(conversation, "flac")


async def test_parts_tile_the_timeline_and_hold_all_of_the_audio(conversation, recorded):
    store = await store_with(recorded)
    parts, done = await run(splitter(store), split_request())
    assert done.duration_s == 240.0
    assert not done.truncated
    assert [part.part for part in parts] == list(range(len(parts)))
    assert [part.start for part in parts] == [0, *(part.end for part in parts[:-1])]
    stored = b"".join([await store.read(part_key("t1", part.part)) for part in parts])
    np.testing.assert_array_equal(np.frombuffer(stored, "<i2"), conversation)


async def test_chunks_lie_in_their_part_and_carry_the_speech(conversation, recorded):
    store = await store_with(recorded)
    parts, _ = await run(splitter(store), split_request())
    chunks = [chunk for part in parts for chunk in part.chunks]
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    for part in parts:
        for chunk in part.chunks:
            assert (chunk.part, chunk.part_start) == (part.part, part.start)
            assert part.start <= chunk.spans[0].start
            assert chunk.spans[-1].end <= part.end
            assert chunk.duration_s <= 15.0
            samples = np.frombuffer(await store.read(part_key("t1", part.part), *chunk.byte_range), "<i2")
            np.testing.assert_array_equal(samples, conversation[chunk.spans[0].start : chunk.spans[-1].end])
    outside = np.ones(len(conversation), bool)
    for chunk in chunks:
        for span in chunk.spans:
            outside[span.start : span.end] = False
    assert np.abs(conversation[outside]).max() < 1000


async def test_the_first_part_is_short_and_the_others_grow():
    store = await store_with(encode(silence(420.0), "flac"))
    parts, _ = await run(splitter(store, part_s=120.0), split_request())
    lengths = [(part.end - part.start) / SAMPLE_RATE for part in parts]
    assert 30 <= lengths[0] < 40
    assert 60 <= lengths[1] < 80
    assert all(120 <= length < 150 for length in lengths[2:-1])


@pytest.mark.parametrize("clips", [(), (1.0, 2.0)])
async def test_a_word_before_a_long_silence_does_not_hold_up_the_parts(clips):
    store = await store_with(encode(np.concatenate([tone(3.0), silence(417.0)]), "flac"))
    parts, _ = await run(splitter(store), split_request(TranscriptionOptions(clip_timestamps=clips)))
    assert [len(part.chunks) for part in parts] == [1] + [0] * (len(parts) - 1)
    assert max(part.end - part.start for part in parts) < to_samples(200)


@pytest.mark.parametrize("vad_filter", [True, False])
async def test_a_resumed_split_gives_the_parts_that_follow(recorded, vad_filter):
    options = TranscriptionOptions(vad_filter=vad_filter)
    store = await store_with(recorded)
    parts, done = await run(splitter(store), split_request(options))
    assert len(parts) > 3
    for stored_parts in some((1, 3), str(vad_filter)):
        again = await store_with(recorded)
        request = split_request(
            options,
            first_part=stored_parts,
            first_chunk=sum(len(part.chunks) for part in parts[:stored_parts]),
            resume_at=parts[stored_parts].start,
        )
        assert await run(splitter(again), request) == (parts[stored_parts:], done)
        for part in parts[stored_parts:]:
            key = part_key("t1", part.part)
            assert await again.read(key) == await store.read(key)
        assert part_key("t1", 0) not in again.keys


async def test_a_split_resumed_at_the_end_is_done():
    store = await store_with(encode(tone(5.0), "flac"))
    request = split_request(first_part=1, first_chunk=1, resume_at=to_samples(5.0))
    track = Track(0, "flac", channels=1, chosen=True)
    assert await run(splitter(store), request) == ([], SplitDone(5.0, False, (track,)))


@pytest.mark.parametrize("content", [silence(0.05), silence(70.0), tone(0.1, amplitude=100)])
async def test_without_speech_there_are_no_chunks(content):
    store = await store_with(encode(content, "wav"))
    parts, done = await run(splitter(store), split_request())
    assert [chunk for part in parts for chunk in part.chunks] == []
    assert parts[-1].end == len(content)
    assert done.duration_s == len(content) / SAMPLE_RATE


async def test_a_task_may_tune_the_voice_detection():
    audio = np.concatenate([tone(2.0), silence(1.2), tone(2.0)])
    store = await store_with(encode(audio, "wav"))

    async def spans(**tuned: int) -> list[tuple[float, float]]:
        parts, _ = await run(splitter(store), split_request(TranscriptionOptions(**tuned)))
        found = [span for part in parts for chunk in part.chunks for span in chunk.spans]
        return [(round(span.start_s, 1), round(span.end_s, 1)) for span in found]

    assert len(await spans()) == 2
    assert len(await spans(vad_min_silence_duration_ms=1500)) == 1
    (_, bare_end), _ = await spans(vad_speech_pad_ms=0)
    (_, padded_end), _ = await spans(vad_speech_pad_ms=300)
    assert padded_end - bare_end == pytest.approx(0.3, abs=0.05)


async def test_without_vad_everything_is_in_chunks_cut_where_it_is_quiet():
    audio = np.concatenate([tone(12.0), silence(0.5), tone(20.0), silence(0.5), tone(10.0)])
    store = await store_with(encode(audio, "wav"))
    parts, _ = await run(splitter(store, no_activity), split_request(TranscriptionOptions(vad_filter=False)))
    spans = [span for part in parts for chunk in part.chunks for span in chunk.spans]
    assert spans[0].start == 0
    assert spans[-1].end == len(audio)
    assert all(after.start == before.end for before, after in pairwise(spans))
    assert 12.0 <= spans[0].end_s <= 12.5


@pytest.mark.parametrize(
    ("clips", "spans"),
    [
        ((2.0, 4.0), [(2.0, 4.0)]),
        ((8.0,), [(8.0, 10.0)]),
        ((6.0, 7.0, 1.0, 2.0, 1.5, 3.0, 9.0, 99.0), [(1.0, 3.0), (6.0, 7.0), (9.0, 10.0)]),
        ((50.0, 60.0), []),
        ((0.0, 0.0, 3.0, 4.0), [(3.0, 4.0)]),
    ],
)
async def test_clip_timestamps_replace_the_vad(clips, spans):
    store = await store_with(encode(silence(10.0), "wav"))
    parts, _ = await run(splitter(store, no_activity), split_request(TranscriptionOptions(clip_timestamps=clips)))
    found = [(span.start_s, span.end_s) for part in parts for chunk in part.chunks for span in chunk.spans]
    assert found == spans


async def test_the_clip_timestamps_that_mean_the_whole_file_leave_the_vad_on():
    store = await store_with(encode(np.concatenate([silence(5.0), tone(2.0), silence(5.0)]), "wav"))
    parts, _ = await run(splitter(store), split_request(TranscriptionOptions(clip_timestamps=(0.0,))))
    (chunk,) = parts[0].chunks
    assert (chunk.start_s, chunk.end_s) == pytest.approx((4.6, 7.4), abs=0.05)


async def test_a_recording_that_breaks_off_says_so():
    content = encode(tone(20.0), "flac")
    parts, done = await run(splitter(await store_with(content[: len(content) // 2])), split_request())
    assert done.truncated
    assert 8 < done.duration_s < 12
    assert parts[-1].end == to_samples(done.duration_s)


@pytest.mark.parametrize(
    ("content", "error"), [(b"text", MediaUndecodable), (recordings.picture_only(), NoAudioStream)]
)
async def test_bad_media_is_refused_and_stores_nothing(content, error):
    store = await store_with(content)
    with pytest.raises(error):
        await run(splitter(store), split_request())
    assert store.keys == {"t1/source"}


async def test_a_recording_that_is_gone_is_refused():
    with pytest.raises(MediaUndecodable):
        await run(splitter(MemoryMediaStore()), split_request())


async def test_a_recording_that_is_too_long_is_refused():
    store = await store_with(encode(silence(100.0), "flac"))
    with pytest.raises(MediaTooLong):
        await run(splitter(store, max_duration_s=50.0), split_request())


async def test_a_full_store_is_reported():
    content = encode(silence(60.0), "flac")
    store = MemoryMediaStore(capacity_bytes=len(content) + 1_000_000)
    await store.write("t1/source", stream(content))
    with pytest.raises(StorageFull):
        await run(splitter(store), split_request())


class WatchedStore(MemoryMediaStore):
    """A media store that records the files it opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[BinaryIO] = []
        self.was_opened = threading.Event()

    def open(self, key: str) -> BinaryIO:
        self.opened.append(super().open(key))
        self.was_opened.set()
        return self.opened[-1]


async def test_a_consumer_that_goes_away_ends_the_work_and_closes_the_file():
    store = WatchedStore()
    await store.write("t1/source", stream(encode(silence(150.0), "flac")))
    parts = splitter(store, part_s=30.0).split(split_request())
    assert isinstance(await anext(parts), SplitPart)
    await parts.aclose()
    assert store.opened[0].closed
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("split")]


async def test_a_cancelled_consumer_ends_the_work_and_closes_the_file():
    store = WatchedStore()
    await store.write("t1/source", stream(encode(silence(150.0), "flac")))
    running = asyncio.create_task(run(splitter(store), split_request()))
    await asyncio.to_thread(store.was_opened.wait, 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert store.opened[0].closed
