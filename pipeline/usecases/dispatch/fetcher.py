"""The first stage of a task with a link or URL: fetching its recording into the media store."""

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
from pipeline.usecases.dispatch.task_slots import TaskSlots

CRAWLER_TIMEOUT_S = 60.0
"""A Crawler sends a heartbeat every few seconds. After this long without one its node counts as unreachable."""


class Fetcher:
    """A queue of recordings to be fetched, in order of priority and shared fairly between clients and hosts.

    Args:
        crawler: fetches recordings; ``None`` in a deployment without a Crawler.
        media: the media store, from which the remains of earlier attempts are deleted.
        settings: number of concurrent fetches, and the timeout of one.
        clock: measures the ageing of waiting tasks.
        heartbeat_timeout_s: seconds without a heartbeat after which the Crawler counts as lost.
    """

    def __init__(
        self,
        crawler: Crawler | None,
        media: MediaStore,
        settings: Settings,
        clock: Clock,
        heartbeat_timeout_s: float = CRAWLER_TIMEOUT_S,
    ) -> None:
        self._crawler = crawler
        self._media = media
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._crawl_timeout_s = settings.crawl.deadline_s + heartbeat_timeout_s
        self._max_concurrent = settings.dispatch.max_concurrent_crawls
        limits = SlotLimits(self._max_concurrent, settings.crawl.max_per_host, reserve=True)
        self._slots = TaskSlots(FairSlots(limits, clock, settings.dispatch.ageing_s))

    @property
    def active_task_ids(self) -> frozenset[int]:
        """Ids of the tasks that hold a slot, and of at most as many of the waiting tasks.

        They only wait for a remote server, so they need not keep other tasks from being claimed.
        """
        return frozenset(self._slots.active_ids).union(islice(self._slots.waiting_ids, self._max_concurrent))

    async def fetch(self, task: Task) -> tuple[str, CrawledMedia]:
        """Fetch the recording of a claimed task. Return its media key and its description.

        Raises:
            ReplicaLost: the Crawler died or stopped sending heartbeats.
            MurmurationError: as in ``Crawler.crawl``.
        """
        request = _request(task)
        async with self._slots.turn(task.id, _turn_request(task, request.url)):
            try:
                await self._media.delete_prefix(task.media_prefix)  # remains of a Crawler that died
                return request.media_key, await self._crawl(request)
            except ReplicaLost:
                await self._media.delete_prefix(task.media_prefix)  # the Crawler that died could not
                raise

    async def _crawl(self, request: CrawlRequest) -> CrawledMedia:
        if self._crawler is None:
            raise InvalidValue("This deployment does not fetch recordings: upload the file instead.", "file_url")
        try:
            async with (
                asyncio.timeout(self._crawl_timeout_s),
                aclosing(self._crawler.crawl(request)) as events,
            ):
                while True:
                    async with asyncio.timeout(self._heartbeat_timeout_s):
                        event = await anext(events)
                    if isinstance(event, CrawledMedia):
                        return event
        except TimeoutError as error:
            raise ReplicaLost("The Crawler stopped answering.") from error


def _turn_request(task: Task, url: str) -> TurnRequest:
    return TurnRequest(share_key(task.id, task.client), task.priority.rank, host=_source_name(task.link, url), cost=1.0)


def _source_name(link: Link | None, url: str) -> str:
    """Return the source that a fetch counts against: the platform if the link has one, else the URL's host."""
    if link is not None and link.kind.platform is not None:
        return link.kind.value
    try:
        return (urlsplit(url).hostname or "").rstrip(".").removeprefix("www.")
    except ValueError:
        return ""  # not a URL; the Crawler reports it


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
