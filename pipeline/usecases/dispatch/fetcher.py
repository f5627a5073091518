"""The first stage of a task that came as a link: its recording goes into the MediaStore."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import islice
from urllib.parse import urlsplit

from pipeline.domain.links.platforms import Link
from pipeline.domain.scheduling.fair_queue import SlotLimits, TurnRequest, share_key
from pipeline.domain.tasks.task import Task
from pipeline.errors import InvalidValue, MurmurationError, ReplicaLost
from pipeline.fair_slots import FairSlots
from pipeline.ports import Clock, CrawledMedia, Crawler, CrawlRequest, MediaStore
from pipeline.settings import Settings
from pipeline.usecases.dispatch.task_places import TaskSlots

CRAWLER_TIMEOUT_S = 60.0
"""A Crawler shows a sign of life every few seconds; after this long without one its node is out of reach."""


class Fetcher:
    """Has recordings fetched, so many at a time: urgent ones first, and shared between clients and hosts.

    Args:
        crawler: ``None`` where nothing fetches.
        media: what an earlier attempt left there is removed.
        settings: how many, and how long one may take.
        clock: for the ageing of those that wait.
    """

    def __init__(self, crawler: Crawler | None, media: MediaStore, settings: Settings, clock: Clock) -> None:
        self._crawler = crawler
        self._media = media
        self._deadline_s = settings.crawl.deadline_s
        self._most = settings.dispatch.max_concurrent_crawls
        limits = SlotLimits(self._most, settings.crawl.max_per_host, reserve=True)
        self._places = TaskSlots(FairSlots(limits, clock, settings.dispatch.ageing_s))

    @property
    def active_task_ids(self) -> frozenset[int]:
        """Ids of the tasks whose recording is on its way, and of as many more, at most, as there are places.

        All they do is wait for somebody else's server, so they need not keep others from being claimed.
        """
        return frozenset(self._places.begun).union(islice(self._places.waiting, self._most))

    async def fetch(self, task: Task) -> tuple[str, CrawledMedia]:
        """Fetches the recording of a claimed task; returns its media key, and what came.

        Raises:
            ReplicaLost: the Crawler died or fell silent.
            MurmurationError: as ``ports.Crawler.crawl``.
        """
        request = _request(task)
        async with self._places.turn(task.id, _turn_request(task, request.url)):
            try:
                await self._media.delete_prefix(task.media_prefix)  # what a lost Crawler may have begun
                return request.media_key, await self._crawl(request)
            except ReplicaLost:
                await self._media.delete_prefix(task.media_prefix)  # the dead can't clean up
                raise

    async def _crawl(self, request: CrawlRequest) -> CrawledMedia:
        if self._crawler is None:
            raise InvalidValue("This deployment does not fetch recordings: upload the file instead.", "file_url")
        try:
            async with (
                asyncio.timeout(self._deadline_s + CRAWLER_TIMEOUT_S),
                aclosing(self._crawler.crawl(request)) as events,
            ):
                while True:
                    async with asyncio.timeout(CRAWLER_TIMEOUT_S):
                        event = await anext(events)
                    if isinstance(event, CrawledMedia):
                        return event
        except TimeoutError as error:
            raise ReplicaLost("The Crawler fell silent.") from error


def _turn_request(task: Task, url: str) -> TurnRequest:
    return TurnRequest(share_key(task.id, task.client), task.priority.rank, host=_source_name(task.link, url), cost=1.0)


def _source_name(link: Link | None, url: str) -> str:
    """Return whom a task's recording is fetched from: a platform, whatever host its links name, or the URL's host."""
    if link is not None and link.kind.platform is not None:
        return link.kind.value
    try:
        return (urlsplit(url).hostname or "").rstrip(".").removeprefix("www.")
    except ValueError:
        return ""  # no URL; the Crawler will say so


def _request(task: Task) -> CrawlRequest:
    if task.file_url is None:
        raise MurmurationError("The task has no recording.")
    return CrawlRequest(
        task.id,
        task.fence,
        task.file_url,
        task.link or Link(),
        f"{task.media_prefix}/source",
        task.priority.rank,
        share_key(task.id, task.client),
    )
