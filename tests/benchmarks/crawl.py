"""The Crawler deployment on sites of this machine: many links at once against one after another, and one large file.

Starts a Ray of its own with the Crawler alone, and the stand-in sites in a process of their own. Each link is a post on
(the stand-in for) TikTok: its page is read by yt-dlp, and then its film is fetched.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from pipeline.domain.links.platforms import Link, LinkKind
from pipeline.domain.tasks.task import NewTask
from pipeline.ports import CrawledMedia, CrawlRequest
from tests.benchmarks.reports import command_line, report
from tests.standins.site import POST
from tests.support.processes import ROOT, free_port, surroundings

MEBIBYTE = 1024 * 1024
SAMPLE_S = 0.1
LINK = f"https://www.tiktok.com/@standin/video/{POST}"
LEASE = timedelta(hours=1)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--links", type=int, default=50)
    arguments.add_argument("--latency-ms", type=float, default=200.0, help="of every answer of the site")
    arguments.add_argument("--large-mb", type=int, default=1000, help="size of the one large file")
    chosen = arguments.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="mc-", dir="/tmp") as folder,  # Ray's sockets need a short path
        sites(Path(folder), chosen.latency_ms) as url,
        crawler(Path(folder), url) as bench,
    ):
        measure(bench, chosen, url)


def measure(bench: Bench, chosen: argparse.Namespace, url: str) -> None:
    bench.crawl(bench.requests(LINK, LinkKind.TIKTOK, 2)[0])  # the library is loaded, the certificates are made
    posts = bench.requests(LINK, LinkKind.TIKTOK, 2 * chosen.links)
    files = bench.requests(f"{url}/clip.mp4", LinkKind.FILE, 2 * chosen.links)
    rows = []
    for what, requests in (("links, read by yt-dlp", posts), ("files by their URL", files)):
        one_by_one_s = seconds(lambda batch=requests[: chosen.links]: [bench.crawl(each) for each in batch])
        at_once_s = seconds(lambda batch=requests[chosen.links :]: bench.crawl_at_once(batch))
        ratio = one_by_one_s / at_once_s
        rows.append([f"{chosen.links} {what}", f"{one_by_one_s:.1f} s", f"{at_once_s:.2f} s", f"{ratio:.1f}×"])
    report(
        f"A site that answers after {chosen.latency_ms:.0f} ms",
        ["what", "one after another", "at once", "gain"],
        rows,
    )
    size = chosen.large_mb * 1_000_000
    [large] = bench.requests(f"{url}/sized/{size}.mp3", LinkKind.FILE, 1)
    with bench.memory() as memory:
        took_s = seconds(lambda: bench.crawl(large))
    print(
        f"\n{chosen.large_mb:,} MB in one file: {took_s:.1f} s, {size / 1e6 / took_s:.0f} MB/s; the Crawler's resident "
        f"memory rose from {memory[0] / MEBIBYTE:.0f} to at most {max(memory) / MEBIBYTE:.0f} MiB\n\n`{command_line()}`"
    )


def seconds(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@dataclass
class Bench:
    """A running Crawler, and a store in which the tasks that it works for are held."""

    handle: Any
    store_url: str

    def requests(self, url: str, kind: LinkKind, count: int) -> list[CrawlRequest]:
        """Make requests whose tasks run."""
        return asyncio.run(self._requests(url, kind, count))

    async def _requests(self, url: str, kind: LinkKind, count: int) -> list[CrawlRequest]:
        from deployments.wiring import task_store
        from pipeline.settings import load_settings

        store = task_store(load_settings())
        await store.migrate()
        for _ in range(count):
            await store.create(NewTask(media_prefix=os.urandom(8).hex(), file_url=url, link=Link(kind)))
        tasks = await store.claim("bench", LEASE, count, {0, 1, 2})
        await store.close()
        return [CrawlRequest(task.id, task.fence, url, Link(kind), f"{task.media_prefix}/source") for task in tasks]

    def crawl(self, request: CrawlRequest) -> CrawledMedia:
        """Crawl one recording, as the Dispatcher requests it."""
        *_, last = self.handle.options(method_name="crawl", stream=True).remote(request)
        assert isinstance(last, CrawledMedia)
        return last

    def crawl_at_once(self, requests: Sequence[CrawlRequest]) -> None:
        with ThreadPoolExecutor(len(requests)) as pool:
            list(pool.map(self.crawl, requests))

    @contextmanager
    def memory(self) -> Iterator[list[int]]:
        """Sample the resident bytes of the Crawler's process while the block runs."""
        process, samples, stop = _replica(), [], threading.Event()

        def sample() -> None:
            while not stop.wait(SAMPLE_S):
                samples.append(process.memory_info().rss)

        samples.append(process.memory_info().rss)
        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield samples
        finally:
            stop.set()
            thread.join()


def _replica() -> psutil.Process:
    family = psutil.Process().children(recursive=True)
    return next(process for process in family if "".join(process.cmdline()[:1]).startswith("ray::ServeReplica:"))


@contextmanager
def sites(folder: Path, latency_ms: float) -> Iterator[str]:
    """Run the stand-ins in a process of their own."""
    port = free_port()
    command = [sys.executable, "-m", "tests.standins.site", "--port", str(port), "--folder", str(folder)]
    command += ["--latency-ms", str(latency_ms)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextmanager
def crawler(home: Path, url: str) -> Iterator[Bench]:
    """Run the deployment with one replica."""
    (home / "ray").mkdir()
    os.environ |= surroundings(home) | {
        "MURMURATION_NETWORK__ALLOW_PRIVATE_HOSTS": '["127.0.0.1"]',
        "MURMURATION_NETWORK__PROXY_RESOLVES": "true",
        "MURMURATION_NETWORK__CA_FILE": str(home / "authority.pem"),
        "MURMURATION_CRAWL__PLATFORMS": json.dumps({"tiktok": {"proxy": url}}),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    warnings.simplefilter("ignore")  # Ray's own, at import and start
    import ray
    from ray import serve

    from deployments.replicas.crawler_replica import crawler_deployment
    from pipeline.settings import load_settings

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        serve.start(proxy_location="Disabled")
        settings = load_settings()
        handle = serve.run(
            crawler_deployment.options(max_ongoing_requests=64).bind(settings), name="crawl", route_prefix=None
        )
        yield Bench(handle, settings.database_url)
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
