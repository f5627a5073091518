from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import BinaryIO

import pytest

from pipeline.domain.audio.extraction import AudioFormat, ExtractionOptions
from pipeline.errors import ExtractionsFull, NoAudioStream, OutputTooLarge
from pipeline.media.sandbox.sandbox import Sandbox, SandboxLimits
from pipeline.media.sandboxed_extractor import SandboxedExtractor
from pipeline.settings import MediaSettings
from tests.support.recordings import encode, flac_of_silence, picture_only, stream, tone


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(SandboxLimits())
    yield sandbox
    sandbox.close()


async def content_of(extractor: SandboxedExtractor, file: BinaryIO) -> bytes:
    return b"".join([block async for block in extractor.blocks(file)])


async def test_what_comes_in_goes_out_in_another_format(sandbox: Sandbox) -> None:
    extractor = SandboxedExtractor(sandbox, MediaSettings())
    with (
        await extractor.receive(stream(encode(tone(3.0), "mp4", picture=True))) as source,
        await extractor.extract(source, ExtractionOptions(output_format=AudioFormat.FLAC)) as target,
    ):
        assert (await content_of(extractor, target)).startswith(b"fLaC")


async def test_many_at_once_take_turns(sandbox: Sandbox) -> None:
    extractor = SandboxedExtractor(sandbox, MediaSettings(max_extractions=2))

    async def one() -> int:
        async with extractor.place():
            with (
                await extractor.receive(stream(encode(tone(1.0), "wav"))) as source,
                await extractor.extract(source, ExtractionOptions(sample_rate=16_000)) as target,
            ):
                return len(await content_of(extractor, target))

    assert await asyncio.gather(*(one() for _ in range(6))) == [32_044] * 6


async def test_beyond_the_line_there_is_no_place(sandbox: Sandbox) -> None:
    extractor = SandboxedExtractor(sandbox, MediaSettings(max_extractions=1, max_waiting_extractions=1))
    async with extractor.place():
        async with extractor.place():
            with pytest.raises(ExtractionsFull, match="2 recordings"):
                async with extractor.place():
                    pass
        async with extractor.place():
            pass


async def test_one_client_leaves_half_of_the_line_to_others(sandbox: Sandbox) -> None:
    extractor = SandboxedExtractor(sandbox, MediaSettings(max_extractions=1, max_waiting_extractions=5))
    async with AsyncExitStack() as held:
        for _ in range(3):
            await held.enter_async_context(extractor.place("greedy"))
        with pytest.raises(ExtractionsFull, match="3 of your recordings"):
            await held.enter_async_context(extractor.place("greedy"))
        for client in ("modest", None, None):
            await held.enter_async_context(extractor.place(client))
        with pytest.raises(ExtractionsFull, match="6 recordings"):
            await held.enter_async_context(extractor.place("new"))
    async with extractor.place("greedy"):
        pass


async def test_a_short_recording_is_done_before_long_ones_of_another_client(sandbox: Sandbox) -> None:
    extractor = SandboxedExtractor(sandbox, MediaSettings(max_duration_s=1e9, max_extractions=2), turns=1)
    ended = list[str]()

    async def extract(content: bytes, client: str, name: str) -> None:
        with await extractor.receive(stream(content)) as source:
            (await extractor.extract(source, ExtractionOptions(sample_rate=8_000), client)).close()
        ended.append(name)

    long = [asyncio.create_task(extract(flac_of_silence(4000, 8000), "greedy", "long")) for _ in range(4)]
    await asyncio.sleep(0.3)
    await extract(encode(tone(1.0), "wav"), "modest", "short")
    assert ended == ["short"]
    for extraction in long:
        extraction.cancel()
    await asyncio.gather(*long, return_exceptions=True)


@pytest.mark.parametrize(
    ("content", "error"), [(picture_only(), NoAudioStream), (flac_of_silence(100, 8000), OutputTooLarge)]
)
async def test_a_refusal_reaches_whoever_asked(sandbox: Sandbox, content: bytes, error: type[Exception]) -> None:
    extractor = SandboxedExtractor(sandbox, MediaSettings(max_upload_bytes=1_000_000))
    with await extractor.receive(stream(content)) as source, pytest.raises(error):
        await extractor.extract(source, ExtractionOptions())


async def test_an_upload_that_breaks_off_leaves_no_file(sandbox: Sandbox) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"RIFF"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):  # and no warning of a file that was not closed
        await SandboxedExtractor(sandbox, MediaSettings()).receive(broken())


async def test_a_client_that_goes_away_takes_the_child_with_it(sandbox: Sandbox) -> None:
    extractor = SandboxedExtractor(sandbox, MediaSettings(max_duration_s=1e9, max_extractions=1))
    with await extractor.receive(stream(flac_of_silence(14_000, 8000))) as source:
        endless = asyncio.ensure_future(extractor.extract(source, ExtractionOptions(output_format=AudioFormat.FLAC)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await endless
    with await extractor.receive(stream(encode(tone(1.0), "wav"))) as source:
        (await extractor.extract(source, ExtractionOptions())).close()  # its place is free
