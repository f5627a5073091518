"""Resumable uploads: arrived bytes are kept, wrong ones are not, and of two concurrent requests one wins."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.tasks.client import Client, Scope
from pipeline.domain.tasks.upload import Upload
from pipeline.errors import (
    ChecksumMismatch,
    MurmurationError,
    QuotaExceeded,
    UploadInterrupted,
    UploadNotFound,
    UploadStateConflict,
    UploadTooLarge,
)
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_media import MemoryMediaStore
from pipeline.testing.memory_uploads import MemoryUploadStore
from pipeline.usecases.tasks import resumable_uploads
from pipeline.usecases.tasks.resumable_uploads import Checksum, ResumableUploads
from tests.support.builders import blocks

TTL_S = 3600.0
ANN = Client("ann", frozenset({Scope.READ, Scope.WRITE}), max_queued_tasks=2)


@dataclass
class Desk:
    clock: ManualClock = field(default_factory=ManualClock)
    media: MemoryMediaStore = field(default_factory=MemoryMediaStore)

    def __post_init__(self) -> None:
        self.store = MemoryUploadStore(self.clock)
        self.uploads = ResumableUploads(self.store, self.media, self.clock, max_upload_bytes=1000, ttl_s=TTL_S)

    async def content(self, upload: Upload) -> bytes:
        return b"".join([block async for block in self.uploads.content(upload)])


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable_uploads, "PART_BYTES", 4)
    monkeypatch.setattr(resumable_uploads, "READ_BYTES", 3)


async def test_parts_are_joined_to_the_recording(desk: Desk) -> None:
    upload = await desk.uploads.create(10, {"filename": "talk.mp3"}, ANN)
    upload = await desk.uploads.append(upload, 0, blocks(b"abc", b"", b"de", b"f"))
    assert (upload.received_bytes, upload.complete) == (6, False)
    upload = await desk.uploads.append(upload, 6, blocks(b"ghij"))
    assert upload.complete
    assert await desk.content(upload) == b"abcdefghij"
    assert upload.file_name == "talk.mp3"


@given(content=st.binary(max_size=40), cuts=st.lists(st.integers(0, 40), max_size=4), block=st.integers(1, 9))
async def test_blocks_of_any_size_are_joined_to_the_recording(content: bytes, cuts: list[int], block: int) -> None:
    desk = Desk()
    upload = await desk.uploads.create(len(content), {})
    edges = sorted({0, len(content), *(min(cut, len(content)) for cut in cuts)})
    for start, end in pairwise(edges):
        piece = content[start:end]
        data = blocks(*(piece[at : at + block] for at in range(0, len(piece), block)))
        upload = await desk.uploads.append(upload, start, data)
    assert await desk.content(upload) == content


@pytest.mark.parametrize("offset", [0, 2, 4, 9])
async def test_bytes_are_accepted_only_at_the_end_of_the_upload(desk: Desk, offset: int) -> None:
    upload = await desk.uploads.create(10, {})
    upload = await desk.uploads.append(upload, 0, blocks(b"abc"))
    with pytest.raises(UploadStateConflict, match=f"is at byte 3, not at {offset}"):
        await desk.uploads.append(upload, offset, blocks(b"x"))


async def test_of_two_concurrent_requests_one_wins_and_the_other_leaves_nothing(desk: Desk) -> None:
    upload = await desk.uploads.create(3, {})
    results = await asyncio.gather(
        desk.uploads.append(upload, 0, blocks(b"abc")),
        desk.uploads.append(upload, 0, blocks(b"xyz")),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["Upload", "UploadStateConflict"]
    winner = b"abc" if isinstance(results[0], Upload) else b"xyz"
    assert await desk.content(await desk.uploads.get(upload.id)) == winner
    assert len(desk.media.keys) == 1


@pytest.mark.parametrize("cause", [UploadInterrupted("gone"), asyncio.CancelledError()])
async def test_bytes_that_arrived_before_an_interruption_are_kept(desk: Desk, cause: BaseException) -> None:
    upload = await desk.uploads.create(10, {})
    with pytest.raises(type(cause)):
        await desk.uploads.append(upload, 0, blocks(b"abcd", b"ef", then=cause))
    upload = await desk.uploads.get(upload.id)
    assert upload.received_bytes == 6
    upload = await desk.uploads.append(upload, 6, blocks(b"ghij"))
    assert await desk.content(upload) == b"abcdefghij"


async def test_more_than_was_announced_is_refused_and_what_fits_is_kept(desk: Desk) -> None:
    upload = await desk.uploads.create(5, {})
    with pytest.raises(UploadTooLarge, match="More bytes arrived"):
        await desk.uploads.append(upload, 0, blocks(b"abc", b"defgh", b"never read"))
    assert await desk.content(await desk.uploads.get(upload.id)) == b"abcde"


async def test_an_upload_over_the_limit_is_refused_before_it_begins(desk: Desk) -> None:
    with pytest.raises(UploadTooLarge, match=r"1,001 bytes and the limit is 1,000"):
        await desk.uploads.create(1001, {})


@pytest.mark.parametrize("algorithm", list(resumable_uploads.CHECKSUMS))
async def test_bytes_with_the_right_checksum_are_accepted(desk: Desk, algorithm: str) -> None:
    checksum = Checksum(algorithm, hashlib.new(algorithm, b"abcdefgh").digest())
    upload = await desk.uploads.append(await desk.uploads.create(8, {}), 0, blocks(b"abcdefgh"), checksum)
    assert await desk.content(upload) == b"abcdefgh"


@pytest.mark.parametrize(("cause", "error"), [(None, ChecksumMismatch), (UploadInterrupted("gone"), UploadInterrupted)])
async def test_bytes_with_a_wrong_checksum_leave_nothing(
    desk: Desk, cause: BaseException | None, error: type[MurmurationError]
) -> None:
    upload = await desk.uploads.create(10, {})
    checksum = Checksum("sha1", hashlib.sha1(b"abcdefghij").digest())
    with pytest.raises(error):
        await desk.uploads.append(upload, 0, blocks(b"abcdefgh", then=cause), checksum)
    assert (await desk.uploads.get(upload.id)).received_bytes == 0
    assert desk.media.keys == frozenset()


@pytest.mark.parametrize("client", [None, Client("bob", ANN.scopes)])
async def test_another_clients_upload_does_not_exist(desk: Desk, client: Client | None) -> None:
    upload = await desk.uploads.create(10, {}, ANN)
    with pytest.raises(UploadNotFound):
        await desk.uploads.get(upload.id, client)
    assert await desk.uploads.get(upload.id, ANN) == upload


async def test_an_upload_to_which_nothing_is_added_expires(desk: Desk) -> None:
    upload = await desk.uploads.create(10, {})
    desk.clock.advance(TTL_S - 1)
    upload = await desk.uploads.append(upload, 0, blocks(b"abc"))
    desk.clock.advance(TTL_S - 1)
    assert (await desk.uploads.get(upload.id)).received_bytes == 3
    desk.clock.advance(1)
    with pytest.raises(UploadNotFound):
        await desk.uploads.get(upload.id)
    with pytest.raises(UploadNotFound):
        await desk.uploads.append(upload, 3, blocks(b"d"))


async def test_an_incomplete_upload_has_no_content(desk: Desk) -> None:
    upload = await desk.uploads.append(await desk.uploads.create(10, {}), 0, blocks(b"abc"))
    with pytest.raises(UploadStateConflict, match="3 of 10 bytes"):
        await desk.content(upload)


async def test_a_deleted_upload_leaves_nothing(desk: Desk) -> None:
    upload = await desk.uploads.append(await desk.uploads.create(10, {}), 0, blocks(b"abcdefg"))
    await desk.uploads.delete(upload)
    assert desk.media.keys == frozenset()
    with pytest.raises(UploadNotFound):
        await desk.uploads.get(upload.id)


async def test_a_client_has_no_more_uploads_under_way_than_tasks_may_wait(desk: Desk) -> None:
    first, _ = [await desk.uploads.create(10, {}, ANN) for _ in range(2)]
    with pytest.raises(QuotaExceeded, match="2 of your uploads are under way"):
        await desk.uploads.create(10, {}, ANN)
    await desk.uploads.create(10, {})
    await desk.uploads.delete(first)
    await desk.uploads.create(10, {}, ANN)
