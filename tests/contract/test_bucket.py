"""Faults that only a bucket can have: parts of an upload that are too large, or left behind."""

from __future__ import annotations

from typing import Any

import fsspec
import pytest

from pipeline.media.media_store import BUCKET_BLOCK_BYTES, FsspecMediaStore
from tests.support.recordings import stream

LARGE = bytes(2 * BUCKET_BLOCK_BYTES + 1)


@pytest.fixture
def s3(bucket: str) -> Any:
    return fsspec.filesystem("s3", use_listings_cache=False)


async def test_a_large_upload_goes_in_parts(bucket: str, s3: Any) -> None:
    store = FsspecMediaStore(f"{bucket}/large")

    assert await store.write("t1/source", stream(LARGE, 1_000_000)) == len(LARGE)

    info = s3.info(f"{bucket}/large/t1/source")
    assert info["size"] == len(LARGE)
    assert info["ETag"].strip('"').partition("-")[2] in ("2", "3")  # how S3 marks what came in parts
    assert await store.read("t1/source", len(LARGE) - 5) == bytes(5)


async def test_no_part_stays_behind_of_a_large_upload_that_breaks(bucket: str, s3: Any) -> None:
    store = FsspecMediaStore(f"{bucket}/broken")

    async def breaking() -> Any:
        async for block in stream(LARGE, 1_000_000):
            yield block
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.write("t1/source", breaking())

    assert s3.call_s3("list_multipart_uploads", Bucket=bucket.removeprefix("s3://")).get("Uploads", []) == []
    assert await store.prefixes() == {}


async def test_another_process_sees_what_was_written_since(bucket: str) -> None:
    writer, reader = FsspecMediaStore(f"{bucket}/shared"), FsspecMediaStore(f"{bucket}/shared")
    assert await reader.prefixes() == {}
    await writer.write("t1/source", stream(b"x"))
    assert await reader.read("t1/source") == b"x"
    assert set(await reader.prefixes()) == {"t1"}
