"""The Crawler deployment, which fetches recordings from URLs and links into the media store."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from ray import serve

from deployments.cluster.shared_storage import verify_storage
from deployments.replicas.startup import begin_replica
from deployments.security.confinement_check import check_confinement, extractor_confinement
from deployments.telemetry.trace_export import tracing
from deployments.wiring import NO_ACCESS_LOG, crawler, media_store, task_store
from pipeline.crawl.extractor_processes import ExtractorProcesses
from pipeline.ports import CrawledMedia, CrawlProgress, CrawlRequest
from pipeline.settings import Settings


class CrawlerReplica:
    """A process that fetches recordings; it reads the pages of links in processes of its own."""

    def __init__(self, settings: Settings, storage_id: str | None = None) -> None:
        begin_replica(settings)
        verify_storage(media_store(settings), storage_id)
        self._store = task_store(settings)
        self._processes = ExtractorProcesses(settings.network.ca_file, settings.crawl.max_processes)
        confinement = extractor_confinement(self._processes, settings.crawl.js_runtime)  # also loads yt-dlp
        check_confinement("extractor", confinement, settings.confinement.required)
        self._tracing = tracing(settings, "Crawler")
        self._crawler = crawler(settings, self._store, self._processes)

    async def crawl(self, request: CrawlRequest) -> AsyncGenerator[CrawlProgress | CrawledMedia, None]:
        """Crawl as ``ports.Crawler`` specifies, inside a span of the task's trace."""
        with self._tracing.span("crawl", request.media_key.partition("/")[0], task_id=request.task_id):
            async for event in self._crawler.crawl(request):
                yield event

    async def __del__(self) -> None:
        """Close processes and connections; Serve awaits this before it stops a replica."""
        await self._processes.aclose()
        await self._store.close()


crawler_deployment = serve.deployment(
    name="Crawler",
    max_ongoing_requests=64,
    ray_actor_options={"num_cpus": 0.1},
    health_check_period_s=2,
    graceful_shutdown_timeout_s=30,
    logging_config=NO_ACCESS_LOG,
)(CrawlerReplica)
