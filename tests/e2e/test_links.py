"""Real yt-dlp, in its own processes, against sites that stand in for the real ones; nothing leaves this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import trustme

from pipeline.crawl.crawler import LocalCrawler
from pipeline.crawl.extractor_processes import ExtractorProcesses
from pipeline.domain.links.platforms import Link, LinkKind
from pipeline.errors import (
    CookiesRequired,
    ExtractorOutdated,
    GeoBlocked,
    LeaseLost,
    MediaTooLong,
    MurmurationError,
    PrivateOrRemoved,
    RateLimited,
    ReplicaLost,
    SourceTimeout,
    SourceTooLarge,
    SourceUnreachable,
    UnsupportedLink,
    UrlNotAllowed,
)
from pipeline.ports import CrawledMedia, CrawlRequest
from pipeline.settings import Settings
from pipeline.system_clock import SystemClock
from pipeline.testing.memory_media import MemoryMediaStore
from tests.standins.site import BOMB_BYTES, CHANGED_POST, POST, RATE_LIMITED_POST, Site, stand_in
from tests.support import recordings

KEY = "t1/source"


@pytest.fixture(scope="module", autouse=True)
def _own_temporary_folder() -> Iterator[None]:
    """Keep scratch folders apart from those of a service that runs beside these tests."""
    with tempfile.TemporaryDirectory(prefix="ml-") as folder, pytest.MonkeyPatch.context() as patch:
        Path(folder).chmod(0o755)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="module")
def film() -> bytes:
    noise = np.random.default_rng(1).integers(-3000, 3000, 32_000).astype(np.int16)
    return recordings.encode(noise, "mp4")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authority")


@pytest.fixture(scope="module")
def processes(folder: Path) -> Iterator[ExtractorProcesses]:
    """One parent for all: that it loads its library once is what it is for."""
    running = ExtractorProcesses(folder / "authority.pem")
    yield running
    asyncio.run(running.aclose())


@pytest.fixture
async def site(film: bytes, folder: Path, authority: trustme.CA) -> AsyncIterator[Site]:
    async with stand_in(film, folder, authority=authority) as running:
        yield running


class Fetching:
    """A crawler that reaches the world only by way of the stand-in."""

    def __init__(self, site: Site, processes: ExtractorProcesses) -> None:
        self.site = site
        self.media = MemoryMediaStore()
        self.processes = processes
        self.runs = True

    async def held(self, request: CrawlRequest) -> bool:
        return self.runs

    def crawler(self, **settings: Any) -> LocalCrawler:
        network = {"proxy": self.site.url, "proxy_resolves": True, "ca_file": self.site.ca_file}
        return LocalCrawler(self.media, self.processes, Settings(network=network, **settings), self.held, SystemClock())

    async def fetch(self, url: str, kind: LinkKind, extractor: str | None = None, **settings: Any) -> CrawledMedia:
        request = CrawlRequest(1, 1, url, Link(kind, extractor), KEY)
        events = [event async for event in self.crawler(**settings).crawl(request)]
        assert isinstance(events[-1], CrawledMedia)
        return events[-1]

    def children(self) -> list[psutil.Process]:
        assert self.processes._fork_server is not None
        return psutil.Process(self.processes._fork_server.pid).children()


@pytest.fixture
def fetching(site: Site, processes: ExtractorProcesses) -> Fetching:
    return Fetching(site, processes)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = scratch_folders()
    yield
    assert scratch_folders() <= before


class Sizes:
    """A watch of the sizes of scratch folders."""

    def __init__(self) -> None:
        self.largest = 0

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        while True:
            files = [file for folder in scratch_folders() for file in folder.glob("*")]
            with suppress(FileNotFoundError):
                self.largest = max(self.largest, sum(file.stat().st_blocks * 512 for file in files))
            await asyncio.sleep(0.005)


def scratch_folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("murmuration-crawl-*"))


# --- what is found ----------------------------------------------------------------------------------------------------


async def test_a_tiktok_post_is_fetched_with_what_the_page_says_of_it(fetching: Fetching, film: bytes) -> None:
    fetched = await fetching.fetch(f"https://www.tiktok.com/@standin/video/{POST}", LinkKind.TIKTOK)

    assert await fetching.media.read(KEY) == film  # the post's own sound, not the song that was laid under it
    assert fetched.size_bytes == len(film)
    assert fetched.file_name == "A fox jumps #standin.mp4"
    assert fetched.platform == "tiktok"
    record = fetched.record
    assert record is not None
    assert (record.media_id, record.author, record.author_name) == (POST, "standin", "Stand In")
    assert (record.duration_s, record.view_count, record.like_count) == (4.0, 1200, 34)
    assert record.published_at is not None
    assert record.published_at.year == 2024
    assert record.library.startswith("yt-dlp ")


async def test_short_links_lead_to_their_post(fetching: Fetching, film: bytes) -> None:
    tiktok = await fetching.fetch("https://vm.tiktok.com/ZMstandin/", LinkKind.TIKTOK)
    assert tiktok.record is not None
    assert tiktok.record.media_id == POST

    douyin = await fetching.fetch("https://v.douyin.com/standin/", LinkKind.DOUYIN)
    assert douyin.platform == "douyin"
    assert douyin.file_name == "狐狸跳 #standin.mp4"
    assert await fetching.media.read(KEY) == film


async def test_short_links_do_not_lead_off_their_platform(fetching: Fetching) -> None:
    for link in ("https://vm.tiktok.com/ZMaway/", "https://vm.tiktok.com/ZMinside/"):
        with pytest.raises(UnsupportedLink, match="not a link of TikTok"):
            await fetching.fetch(link, LinkKind.TIKTOK)
    assert {request.host for request in fetching.site.requests} == {"vm.tiktok.com"}


async def test_a_page_of_any_site_is_searched_for_its_recording(fetching: Fetching, film: bytes) -> None:
    fetched = await fetching.fetch("https://films.example/film", LinkKind.ANY)
    assert (fetched.size_bytes, fetched.platform) == (len(film), "html5")
    assert await fetching.media.read(KEY) == film


@pytest.mark.parametrize("kind", ["stream", "sealed", "dash"])
async def test_a_recording_in_fragments_is_put_together(fetching: Fetching, film: bytes, kind: str) -> None:
    fetched = await fetching.fetch(f"https://films.example/{kind}", LinkKind.ANY)
    assert await fetching.media.read(KEY) == film
    assert fetched.file_name.endswith(".mp4")


async def test_an_extractor_can_be_named(fetching: Fetching) -> None:
    named = await fetching.fetch(f"https://www.tiktok.com/@standin/video/{POST}", LinkKind.ANY, "TikTok")
    assert named.platform == "tiktok"
    with pytest.raises(UnsupportedLink):
        await fetching.fetch(f"https://www.tiktok.com/@standin/video/{POST}", LinkKind.ANY, "vimeo")


async def test_a_site_is_asked_as_the_settings_say(fetching: Fetching) -> None:
    cookies = "# Netscape HTTP Cookie File\n.tiktok.com\tTRUE\t/\tTRUE\t0\tsessionid\topen-sesame\n"
    own = {"cookies": cookies, "user_agent": "Mine/1.0"}
    await fetching.fetch(
        f"https://www.tiktok.com/@standin/video/{POST}", LinkKind.TIKTOK, crawl={"platforms": {"tiktok": own}}
    )
    page = next(request for request in fetching.site.requests if request.host == "www.tiktok.com")
    assert "sessionid=open-sesame" in page.headers["cookie"]
    media = next(request for request in fetching.site.requests if request.host == "v16-webapp-prime.tiktok.com")
    assert media.headers["user-agent"] == "Mine/1.0"


# --- what is not ------------------------------------------------------------------------------------------------------

TIKTOK = "https://www.tiktok.com/@standin/video/"
REFUSED: dict[str, tuple[str, LinkKind, type[MurmurationError]]] = {
    "a private post": (TIKTOK + "7000000000000000216", LinkKind.TIKTOK, PrivateOrRemoved),
    "a private account": (TIKTOK + "7000000000000000222", LinkKind.TIKTOK, PrivateOrRemoved),
    "a post that is not shown here": (TIKTOK + "7000000000000000204", LinkKind.TIKTOK, GeoBlocked),
    "a post that is gone": (TIKTOK + "7000000000000000000", LinkKind.TIKTOK, PrivateOrRemoved),
    "a post that never was": (TIKTOK + "7000000000000000001", LinkKind.TIKTOK, PrivateOrRemoved),
    "too often": (TIKTOK + RATE_LIMITED_POST, LinkKind.TIKTOK, RateLimited),
    "a page that has changed": (TIKTOK + CHANGED_POST, LinkKind.TIKTOK, ExtractorOutdated),
    "Douyin without its cookies": ("https://www.douyin.com/video/123", LinkKind.DOUYIN, CookiesRequired),
    "a page without a recording": ("https://films.example/text", LinkKind.ANY, UnsupportedLink),
    "a page with several": ("https://films.example/many", LinkKind.ANY, UnsupportedLink),
    "a page for members": ("https://films.example/login", LinkKind.ANY, CookiesRequired),
    "a site that counts": ("https://films.example/often", LinkKind.ANY, RateLimited),
    "a site of elsewhere": ("https://films.example/elsewhere", LinkKind.ANY, GeoBlocked),
    "a site that is down": ("https://films.example/down", LinkKind.ANY, SourceUnreachable),
    "a page that leads inside": ("https://films.example/inside", LinkKind.ANY, UrlNotAllowed),
    "a page that is inside": ("http://169.254.169.254/latest", LinkKind.ANY, UrlNotAllowed),
    "this machine": ("http://localhost:6379/", LinkKind.ANY, UrlNotAllowed),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_a_site_does_instead_is_said_in_words(fetching: Fetching, case: str) -> None:
    url, kind, error = REFUSED[case]
    with pytest.raises(error) as caught:
        await fetching.fetch(url, kind)
    assert caught.value.message.endswith(".")
    assert "ERROR" not in caught.value.message
    assert fetching.media.keys == set()
    assert not [request for request in fetching.site.requests if request.host.startswith("169.254")]


async def test_how_long_a_site_wants_to_be_left_alone_is_kept(fetching: Fetching) -> None:
    with pytest.raises(RateLimited) as caught:
        await fetching.fetch(TIKTOK + RATE_LIMITED_POST, LinkKind.TIKTOK)
    assert caught.value.retry_after_s == 120.0


async def test_a_page_without_an_end_is_not_read_to_it(fetching: Fetching) -> None:
    limits = {"max_page_bytes": 500_000}
    with pytest.raises(SourceTooLarge):
        await fetching.fetch(
            "https://films.example/endless", LinkKind.ANY, crawl=limits, media={"max_upload_bytes": 500_000}
        )


async def test_a_page_that_swells_takes_no_more_memory_than_it_may(fetching: Fetching) -> None:
    with pytest.raises(SourceTooLarge):
        await fetching.fetch("https://films.example/bomb", LinkKind.ANY, crawl={"max_process_bytes": 512 * 2**20})


async def test_a_page_without_an_end_is_held_to_what_a_page_may_have_not_to_what_a_recording_may(
    fetching: Fetching,
) -> None:
    with pytest.raises(SourceTooLarge, match="500,000 bytes"):
        await fetching.fetch("https://films.example/endless", LinkKind.ANY, crawl={"max_page_bytes": 500_000})


async def test_a_fragment_that_swells_takes_no_more_disk_than_it_may(fetching: Fetching) -> None:
    sizes = Sizes()
    async with sizes.watched():
        with pytest.raises(SourceTooLarge):
            await fetching.fetch(
                "https://films.example/swelling", LinkKind.ANY, crawl={"max_process_bytes": 64 * 2**20}
            )
    assert 0 < sizes.largest <= 65 * 2**20 < BOMB_BYTES


async def test_fragments_that_swell_are_held_to_the_limit_of_a_recording(fetching: Fetching) -> None:
    limits: dict[str, Any] = {
        "crawl": {"max_process_bytes": 256 * 2**20},
        "media": {"max_upload_bytes": 2 * BOMB_BYTES},
    }
    with pytest.raises(SourceTooLarge, match=f"{2 * BOMB_BYTES:,} bytes"):
        await fetching.fetch("https://films.example/swelling", LinkKind.ANY, **limits)
    assert fetching.media.keys == set()


async def test_a_scratch_folder_that_fills_up_ends_its_process(fetching: Fetching) -> None:
    """A process that was taken over may write many files, each within its limit."""
    fetching.site.latency_s = 30.0
    limits = {"max_process_bytes": 64 * 2**20, "extract_timeout_s": 60}
    before = scratch_folders()
    crawl = asyncio.create_task(fetching.fetch("https://films.example/film", LinkKind.ANY, crawl=limits))
    while not (folders := scratch_folders() - before):
        await asyncio.sleep(0.02)
    [scratch] = folders
    for number in range(130):
        (scratch / str(number)).write_bytes(bytes(2**20))
    with pytest.raises(SourceTooLarge):
        await crawl


async def test_processes_wait_for_a_place(folder: Path, site: Site) -> None:
    few = ExtractorProcesses(folder / "authority.pem", max_processes=1)
    fetching = Fetching(site, few)
    site.latency_s = 0.2
    most = 0

    async def count() -> None:
        nonlocal most
        while True:
            most = max(most, len(fetching.children()) if few._fork_server else 0)
            await asyncio.sleep(0.01)

    counting = asyncio.create_task(count())
    urls = ["https://films.example/film", "https://films.example/film"]
    await asyncio.gather(*(fetching.fetch(url, LinkKind.ANY) for url in urls))
    counting.cancel()
    await few.aclose()
    assert most == 1


async def test_one_clients_links_leave_processes_to_others(folder: Path, site: Site) -> None:
    few = ExtractorProcesses(folder / "authority.pem", max_processes=4)
    fetching = Fetching(site, few)
    few.start()
    site.latency_s = 60.0

    async def crawl(number: int, client: str) -> None:
        url = f"https://films{number}.example/film"
        request = CrawlRequest(number, 1, url, Link(LinkKind.ANY, None), f"t{number}/source", 1, f"client {client}")
        async for _ in fetching.crawler().crawl(request):
            pass

    async with asyncio.timeout(30):
        greedy = [asyncio.create_task(crawl(number, "greedy")) for number in range(6)]
        while len(fetching.children()) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert len(fetching.children()) == 2
        modest = asyncio.create_task(crawl(9, "modest"))
        while len(fetching.children()) < 3:
            await asyncio.sleep(0.01)
    for task in (*greedy, modest):
        task.cancel()
    await asyncio.gather(*greedy, modest, return_exceptions=True)
    await few.aclose()


class HeldStore(MemoryMediaStore):
    """A media store that accepts nothing before it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def write(self, key: str, data: AsyncIterator[bytes]) -> int:
        self.begun.set()
        await self.go_on.wait()
        return await super().write(key, data)


async def test_a_file_is_downloaded_without_the_process_that_found_it(fetching: Fetching, film: bytes) -> None:
    fetching.media = store = HeldStore()
    crawl = asyncio.create_task(fetching.fetch("https://films.example/film", LinkKind.ANY))
    async with asyncio.timeout(30):
        await store.begun.wait()
        await gone(fetching.children())
    store.go_on.set()
    assert (await crawl).size_bytes == len(film)


async def test_a_process_connects_to_nothing_outside_its_own_network(fetching: Fetching) -> None:
    assert (await fetching.processes.confinement()).missing == ()


async def test_a_recording_that_is_too_long_is_not_even_begun(fetching: Fetching) -> None:
    with pytest.raises(MediaTooLong, match="4 s long"):
        await fetching.fetch(TIKTOK + POST, LinkKind.TIKTOK, media={"max_duration_s": 3})
    assert not fetching.site.paths_of("v16-webapp-prime.tiktok.com")


async def test_a_recording_in_fragments_is_held_to_the_limit_too(fetching: Fetching) -> None:
    with pytest.raises(SourceTooLarge):
        await fetching.fetch("https://films.example/stream", LinkKind.ANY, media={"max_upload_bytes": 10_000})
    assert fetching.media.keys == set()


async def test_a_site_that_takes_too_long_is_given_up(fetching: Fetching) -> None:
    fetching.site.latency_s = 30.0
    with pytest.raises(SourceTimeout):
        await fetching.fetch("https://films.example/film", LinkKind.ANY, crawl={"extract_timeout_s": 0.3})


# --- processes that end -----------------------------------------------------------------------------------------------


async def begun(fetching: Fetching, until: Callable[[], bool]) -> asyncio.Task[CrawledMedia]:
    """Start a crawl whose requests get no response for long, and wait until a condition holds."""
    fetching.site.latency_s = 60.0
    crawl = asyncio.create_task(fetching.fetch("https://films.example/film", LinkKind.ANY))
    async with asyncio.timeout(20):
        while not until():
            await asyncio.sleep(0.01)
    return crawl


async def gone(processes: list[psutil.Process]) -> None:
    async with asyncio.timeout(10):
        while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
            await asyncio.sleep(0.01)


async def test_a_crawl_that_is_given_up_takes_its_process_along(fetching: Fetching) -> None:
    crawl = await begun(fetching, lambda: bool(fetching.site.requests))
    children = fetching.children()
    assert children
    crawl.cancel()
    with pytest.raises(asyncio.CancelledError):
        await crawl
    await gone(children)


async def test_a_process_that_dies_is_a_crawl_to_be_repeated(fetching: Fetching) -> None:
    crawl = await begun(fetching, lambda: bool(fetching.site.requests))
    for child in fetching.children():
        child.send_signal(signal.SIGKILL)
    with pytest.raises(ReplicaLost):
        await crawl


async def test_the_parent_of_the_processes_is_replaced_when_it_dies(fetching: Fetching) -> None:
    fetching.processes.start()
    fork_server = fetching.processes._fork_server
    assert fork_server is not None
    os.kill(fork_server.pid, signal.SIGKILL)
    await asyncio.to_thread(fork_server._process.wait)
    assert await fetching.fetch("https://films.example/film", LinkKind.ANY)


async def test_a_crawl_whose_task_is_gone_ends(fetching: Fetching) -> None:
    fetching.runs = False
    with pytest.raises(LeaseLost):
        await fetching.fetch("https://films.example/film", LinkKind.ANY)
    assert fetching.media.keys == set()
