"""The first stage of a task that came as a link: its recording goes into the MediaStore."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from pipeline.domain.crawl import Link
from pipeline.domain.task import Task
from pipeline.errors import InvalidValue, MurmurationError, ReplicaLost
from pipeline.ports import CrawledMedia, Crawler, CrawlRequest, MediaStore
from pipeline.settings import Settings

SILENCE_S = 60.0
"""A Crawler shows a sign of life every few seconds; after this long without one its node is out of reach."""


class Fetcher:
    """Has recordings fetched, so many at a time.

    Args:
        crawler: ``None`` where nothing fetches.
        media: what an earlier attempt left there is removed.
        settings: how many, and how long one may take.

    Attributes:
        at_work: ids of the tasks whose recording is on its way. All they do is wait for somebody else's server, so they
            need not keep others from being claimed.
    """

    def __init__(self, crawler: Crawler | None, media: MediaStore, settings: Settings) -> None:
        self._crawler = crawler
        self._media = media
        self._deadline_s = settings.crawl.deadline_s
        self.at_work: set[int] = set()
        self._slots = asyncio.Semaphore(settings.dispatch.max_concurrent_crawls)

    async def fetch(self, task: Task) -> tuple[str, CrawledMedia]:
        """Fetches the recording of a claimed task; returns its media key, and what came.

        Raises:
            ReplicaLost: the Crawler died or fell silent.
            MurmurationError: as ``ports.Crawler.crawl``.
        """
        async with self._slots:
            request = _request(task)
            self.at_work.add(task.id)
            try:
                await self._media.delete_prefix(task.media_prefix)  # what a lost Crawler may have begun
                return request.media_key, await self._crawl(request)
            except ReplicaLost:
                await self._media.delete_prefix(task.media_prefix)  # the dead can't clean up
                raise
            finally:
                self.at_work.discard(task.id)

    async def _crawl(self, request: CrawlRequest) -> CrawledMedia:
        if self._crawler is None:
            raise InvalidValue("This deployment does not fetch recordings: upload the file instead.", "file_url")
        try:
            async with (
                asyncio.timeout(self._deadline_s + SILENCE_S),
                aclosing(self._crawler.crawl(request)) as events,
            ):
                while True:
                    async with asyncio.timeout(SILENCE_S):
                        event = await anext(events)
                    if isinstance(event, CrawledMedia):
                        return event
        except TimeoutError as error:
            raise ReplicaLost("The Crawler fell silent.") from error


def _request(task: Task) -> CrawlRequest:
    if task.file_url is None:
        raise MurmurationError("The task has no recording.")
    return CrawlRequest(task.id, task.fence, task.file_url, task.link or Link(), f"{task.media_prefix}/source")
