"""``/metrics``: what every node of the cluster exports of this service, as one page for Prometheus.

Each node has a port of its own for the metrics of its processes, which Prometheus finds through a file of Ray's
(docs/operations.md). This page needs neither: it asks those ports and joins what they say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator

import httpx

from deployments.cluster.nodes import alive_nodes

logger = logging.getLogger(__name__)

FAMILIES = ("ray_murmuration_", "ray_serve_")
"""What of a node's page is this service's."""

NODE_TIMEOUT_S = 5.0


async def metrics_page() -> str:
    """All nodes' metrics of this service, in Prometheus's text format; a node that does not answer is left out."""
    nodes = await asyncio.to_thread(alive_nodes)
    addresses = [f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in nodes]
    async with httpx.AsyncClient(timeout=NODE_TIMEOUT_S, trust_env=False) as client:
        pages = await asyncio.gather(*(_page(client, address) for address in addresses))
    return await asyncio.to_thread(joined, pages)


async def _page(client: httpx.AsyncClient, address: str) -> str:
    try:
        answer = await client.get(address)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        logger.warning("a node's metrics can't be read: %s", type(error).__name__)
        return ""
    return answer.text


def joined(pages: Iterable[str]) -> str:
    """One page of several, each family once with its samples from all of them, and only this service's families."""
    families: dict[str, tuple[list[str], list[str]]] = {}
    for page in pages:
        for name, comments, samples in _families(page):
            known = families.setdefault(name, (comments, []))
            known[1].extend(samples)
    lines = [line for comments, samples in families.values() for line in (*comments, *samples)]
    return "".join(f"{line}\n" for line in lines)


def _families(page: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """The families of a page: name, its ``# HELP`` and ``# TYPE`` lines, its samples."""
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
