"""The content of ``/metrics``: this service's metrics of every node of the cluster, as one page for Prometheus.

Each node exports the metrics of its processes on a TCP port of its own, which Prometheus can find through a file that
Ray writes (docs/operations.md). This page is the alternative: it merges the metrics of all those ports.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator

import httpx

from deployments.cluster.nodes import alive_nodes

logger = logging.getLogger(__name__)

FAMILIES = ("ray_murmuration_", "ray_serve_")
"""Prefixes of the metric families that belong to this service."""

NODE_TIMEOUT_S = 5.0


async def metrics_page() -> str:
    """Return this service's metrics of all nodes that answer, in Prometheus's text format."""
    nodes = await asyncio.to_thread(alive_nodes)
    addresses = [f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in nodes]
    async with httpx.AsyncClient(timeout=NODE_TIMEOUT_S, trust_env=False) as client:
        pages = await asyncio.gather(*(_page(client, address) for address in addresses))
    return await asyncio.to_thread(joined, pages)


async def _page(client: httpx.AsyncClient, address: str) -> str:
    try:
        response = await client.get(address)
        response.raise_for_status()
    except httpx.HTTPError as error:
        logger.warning("a node's metrics can't be read: %s", type(error).__name__)
        return ""
    return response.text


def joined(pages: Iterable[str]) -> str:
    """Return one page with the samples of all pages, each family once, and only this service's families."""
    families: dict[str, tuple[list[str], list[str]]] = {}
    for page in pages:
        for name, comments, samples in _families(page):
            _, merged_samples = families.setdefault(name, (comments, []))
            merged_samples.extend(samples)
    lines = [line for comments, samples in families.values() for line in (*comments, *samples)]
    return "".join(f"{line}\n" for line in lines)


def _families(page: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield this service's families of a page: the name, the ``# HELP`` and ``# TYPE`` lines, and the samples."""
    name, comments, samples = "", list[str](), list[str]()
    for line in page.splitlines():
        if line.startswith("# HELP "):
            if name.startswith(FAMILIES):
                yield name, comments, samples
            name, comments, samples = line.split(" ", 3)[2], [line], []
        elif line.startswith("# "):
            comments.append(line)
        elif line:
            samples.append(line)
    if name.startswith(FAMILIES):
        yield name, comments, samples
