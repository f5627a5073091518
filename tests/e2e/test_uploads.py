"""Uploads over real sockets: a real tus client, two replicas over one database, clients that dawdle or lie."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed

from deployments.api.application import build_api
from deployments.api.concurrency.event_loop import FairSemaphore
from deployments.api.services import Readiness, Services, build_submitter, build_uploads
from deployments.wiring import media_store, task_store, upload_store
from pipeline.settings import Settings
from pipeline.system_clock import SystemClock
from pipeline.testing.fake_dispatcher import FakeDispatcher
from pipeline.testing.fake_summarizer import FakeSummarizer
from pipeline.testing.local_extractor import LocalExtractor
from pipeline.testing.manual_clock import ManualClock

CREATE = "/api/whisper/tasks/create"
UPLOADS = "/api/whisper/uploads"
KEY, OTHER_KEY = "mur_a-key-of-this-test", "mur_another-key-of-this-test"
KEYS = [
    {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()} for name, key in (("a", KEY), ("b", OTHER_KEY))
]
RECORDING = random.Random(0).randbytes(700_000)


class QuietServer(uvicorn.Server):
    """One that leaves the process's signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def nothing(*_: object) -> None:
    """Ignore the hint."""


async def first_state(*_: object) -> int:
    """Report no change."""
    return 0


async def ready() -> Readiness:
    return Readiness(ready=True)


@asynccontextmanager
async def replica(settings: Settings) -> AsyncIterator[str]:
    """Run one HTTP server over the stores that the settings name; yield its address."""
    store = task_store(settings)
    await store.migrate()
    media, clock, dispatcher = media_store(settings), SystemClock(), FakeDispatcher(ManualClock())
    services = Services(
        store=store,
        submitter=build_submitter(settings, store, media, dispatcher, clock, nothing),
        uploads=build_uploads(settings, upload_store(store), media, clock),
        media=media,
        settings=settings,
        clock=clock,
        dispatcher=dispatcher,
        readiness=ready,
        engine=nothing,
        summarizer=FakeSummarizer(),
        extractor=LocalExtractor(),
        transcript_slots=FairSemaphore(1),
        stream_slots=FairSemaphore(1),
    )
    config = uvicorn.Config(build_api(services), port=0, log_config=None, lifespan="off", ws="none")
    server = QuietServer(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        await store.close()


@dataclass
class UploadService:
    """Two replicas, and a client of the first."""

    addresses: tuple[str, str]
    client: httpx.AsyncClient
    media: Path

    def tus(self, key: str = KEY, replica: int = 0) -> TusClient:
        return TusClient(f"{self.addresses[replica]}{UPLOADS}", headers={"Authorization": f"Bearer {key}"})

    async def in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.to_thread(work, *arguments)

    async def create(self, key: str = KEY, **query: str) -> httpx.Response:
        return await self.client.post(CREATE, params=query, headers={"Authorization": f"Bearer {key}"})

    async def serves_the_next_request(self) -> None:
        for address in self.addresses:
            assert (await self.client.get(f"{address}/api/health/check")).json() == {"status": "ok"}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[UploadService]:
    settings = Settings(
        database={"url": f"sqlite+aiosqlite:///{tmp_path / 'tasks.db'}"},
        media={"url": (tmp_path / "media").as_uri(), "max_upload_bytes": 1 << 20},
        auth={"keys": KEYS},
        http={"upload_idle_timeout_s": 0.3},
    )
    async with AsyncExitStack() as stack:
        addresses = [await stack.enter_async_context(replica(settings)) for _ in range(2)]
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=addresses[0], trust_env=False, timeout=30))
        service = UploadService((addresses[0], addresses[1]), client, tmp_path / "media")
        yield service
        await service.serves_the_next_request()


async def test_a_tus_client_uploads_in_pieces_to_either_replica(service: UploadService) -> None:
    source = io.BytesIO(RECORDING)
    first = service.tus().uploader(
        file_stream=source, chunk_size=200_000, metadata={"filename": "talk.mp3"}, upload_checksum=True
    )
    await service.in_thread(first.upload, 400_000)
    assert first.url
    path = first.url.removeprefix(service.addresses[0])
    second = await service.in_thread(
        lambda: service.tus(replica=1).uploader(
            file_stream=source, url=f"{service.addresses[1]}{path}", chunk_size=150_000, upload_checksum=True
        )
    )
    assert second.offset == 400_000
    await service.in_thread(second.upload)
    answer = await service.create(upload_id=path.rpartition("/")[2], language="en")
    record = answer.json()["data"]
    assert (record["file_name"], record["file_size_bytes"]) == ("talk.mp3", len(RECORDING))
    assert (service.media / record["file_path"]).read_bytes() == RECORDING
    assert [file for file in service.media.rglob("*") if file.is_file()] == [service.media / record["file_path"]]


async def test_a_tus_client_without_the_key_gets_nowhere(service: UploadService) -> None:
    uploader = service.tus("mur_not-a-key").uploader(file_stream=io.BytesIO(b"audio"))
    with pytest.raises(TusCommunicationError, match="401"):
        await service.in_thread(uploader.upload)
    mine = service.tus().uploader(file_stream=io.BytesIO(b"audio"))
    await service.in_thread(mine.upload)
    assert mine.url
    with pytest.raises(TusCommunicationError, match="404"):
        await service.in_thread(lambda: service.tus(OTHER_KEY).uploader(file_stream=io.BytesIO(b"audio"), url=mine.url))
    assert (await service.create(OTHER_KEY, upload_id=mine.url.rpartition("/")[2])).status_code == 404


async def test_a_file_over_the_limit_is_refused_before_it_is_sent(service: UploadService) -> None:
    uploader = service.tus().uploader(file_stream=io.BytesIO(bytes((1 << 20) + 1)))
    with pytest.raises(TusCommunicationError, match="413"):
        await service.in_thread(uploader.upload)
    assert not service.media.exists()


async def test_a_wrong_checksum_is_refused(service: UploadService) -> None:
    uploader = service.tus().uploader(file_stream=io.BytesIO(b"audio"), upload_checksum=True)
    vars(uploader)["_BaseUploader__checksum_algorithm"] = hashlib.sha256  # named sha1
    with pytest.raises(TusUploadFailed) as caught:
        await service.in_thread(uploader.upload)
    assert caught.value.status_code == 460


async def raw(service: UploadService, head: str, *body: bytes, then_wait: bool) -> bytes:
    """Send bytes as they are and return the response; close the connection after them, or wait for its end."""
    host, port = service.addresses[0].removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{head}\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n".encode())
    for block in body:
        writer.write(block)
        await writer.drain()
    answer = await reader.read(65_536) if then_wait else b""
    writer.close()
    await writer.wait_closed()
    return answer


async def begun(service: UploadService, size_bytes: int) -> str:
    headers = {"Authorization": f"Bearer {KEY}", "Tus-Resumable": "1.0.0", "Upload-Length": str(size_bytes)}
    return str((await service.client.post(UPLOADS, headers=headers)).headers["location"])


async def offset_of(service: UploadService, address: str) -> int:
    headers = {"Authorization": f"Bearer {KEY}", "Tus-Resumable": "1.0.0"}
    return int((await service.client.head(address, headers=headers)).headers["upload-offset"])


PATCH = (
    b"Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\n"
    b"Content-Length: 900000\r\n\r\n"
)


async def test_what_arrived_before_a_connection_broke_stays(service: UploadService) -> None:
    address = await begun(service, 900_000)
    await raw(service, f"PATCH {address} HTTP/1.1", PATCH, RECORDING[:300_000], then_wait=False)
    while await offset_of(service, address) != 300_000:  # until the server has noticed
        await asyncio.sleep(0.01)


async def test_a_client_that_stops_sending_is_answered_and_what_it_sent_stays(service: UploadService) -> None:
    address = await begun(service, 900_000)
    answer = await raw(service, f"PATCH {address} HTTP/1.1", PATCH, RECORDING[:1000], then_wait=True)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert await offset_of(service, address) == 1000


async def test_a_form_that_stops_is_answered_and_leaves_nothing(service: UploadService) -> None:
    head = b"Content-Type: multipart/form-data; boundary=e\r\nContent-Length: 900000\r\n\r\n"
    part = b'--e\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nsome'
    answers = await asyncio.gather(
        *(raw(service, f"POST {CREATE} HTTP/1.1", head, part, then_wait=True) for _ in range(20))
    )
    assert {answer[:13] for answer in answers} == {b"HTTP/1.1 408 "}
    assert not [file for file in service.media.rglob("*") if file.is_file()]


async def test_headers_can_not_be_split(service: UploadService) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Tus-Resumable": "1.0.0"}
    name = {"Upload-Length": "1", "Upload-Metadata": "filename YQ0KU2V0LUNvb2tpZTogeD0x"}  # a\r\nSet-Cookie: x=1
    begun = await service.client.post(UPLOADS, headers=headers | name)
    look = await service.client.head(begun.headers["location"], headers=headers)
    assert "set-cookie" not in look.headers
    assert look.headers["upload-metadata"] == "filename YVNldC1Db29raWU6IHg9MQ=="


async def test_uploads_at_once_on_both_replicas(service: UploadService) -> None:
    async def one(number: int) -> tuple[int, httpx.Response]:
        content = {"file": (f"{number}.mp3", RECORDING[number : number + 20_000])}
        url = f"{service.addresses[number % 2]}{CREATE}"
        headers = {"Authorization": f"Bearer {KEY}"}
        return number, await service.client.post(url, files=content, headers=headers)

    for number, answer in await asyncio.gather(*map(one, range(40))):
        assert answer.status_code == 200, answer.text
        stored = (service.media / answer.json()["data"]["file_path"]).read_bytes()
        assert stored == RECORDING[number : number + 20_000]
