"""Whether every node of the cluster sees the same media store and the same database.

A folder may be shared or be each node's own, and ``localhost`` is another machine everywhere: both look right from
where the application is built. So a mark is left there and looked for from every other node; a node that joins later is
held to it by each replica it starts. What is wrong is refused in a sentence, before a recording is lost to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from uuid import uuid4

from ray.exceptions import RayError

from deployments.cluster.nodes import alive_nodes, run_on_all
from deployments.wiring import media_store
from pipeline.errors import ConfigurationError, DatabaseUnavailable
from pipeline.media.media_store import STORAGE_ID_KEY
from pipeline.ports import MediaStore
from pipeline.settings import Settings
from pipeline.store.connection.storage_id import database_id_is_held, hold_database_id

logger = logging.getLogger(__name__)

OTHER_STORE = (
    "does not see the media store that the other nodes see: MURMURATION_MEDIA__URL must be a bucket, or a folder that "
    "is mounted on every node"
)
OTHER_DATABASE = (
    "does not see the database that the other nodes see: MURMURATION_DATABASE__URL must name a host that is the same "
    "from every node"
)


def check_cluster(settings: Settings) -> str:
    """Marks the media store and the database, and looks for both marks from every node that is up.

    Returns:
        What ``verify_storage`` is to find in the media store, from every node, from now on.

    Raises:
        ConfigurationError: what which node does not see.
    """
    return asyncio.run(_check_cluster(settings))


def verify_storage(media: MediaStore, mark: str | None) -> None:
    """Raises ``ConfigurationError`` if this node's media store is not the one that was marked; blocks for a moment."""
    if mark is not None and _read_storage_id(media) != mark:
        raise ConfigurationError(f"This node {OTHER_STORE}.")


async def _check_cluster(settings: Settings) -> str:
    mark = await _ensure_storage_id(media_store(settings))
    if len(alive_nodes()) < 2:
        return mark
    name = f"murmuration-{mark}"
    try:
        async with hold_database_id(settings.database_url, name):
            answers = await asyncio.to_thread(run_on_all, partial(_check_node, settings, mark, name))
    except DatabaseUnavailable as error:
        logger.warning("whether all nodes see one database can't be checked: %s", error)
        answers = await asyncio.to_thread(run_on_all, partial(_check_node, settings, mark, None))
    if problems := [problem for node, answer in answers for problem in _problems(node, answer)]:
        raise ConfigurationError(" ".join(problems))
    return mark


def _problems(node: str, answer: tuple[bool, bool] | RayError) -> list[str]:
    """Sentences about a node, empty if it sees what it should; a node that has gone is no problem of this kind."""
    if isinstance(answer, RayError):
        logger.warning("node %s did not say what it sees: %s", node, type(answer).__name__)
        return []
    same_store, same_database = answer
    checks = ((same_store, OTHER_STORE), (same_database, OTHER_DATABASE))
    return [f"Node {node} {sentence}." for seen, sentence in checks if not seen]


def _check_node(settings: Settings, mark: str, database_id: str | None) -> tuple[bool, bool]:
    """Runs on a node: whether it sees the mark in the media store, and the one in the database if there is one."""
    same_store = _read_storage_id(media_store(settings)) == mark
    return same_store, database_id is None or asyncio.run(database_id_is_held(settings.database_url, database_id))


async def _ensure_storage_id(media: MediaStore) -> str:
    """The store's mark, made if there is none."""
    known = _read_storage_id(media)
    if known:
        return known
    mark = uuid4().hex
    try:
        await media.write(STORAGE_ID_KEY, _once(mark.encode()))
    except Exception as error:
        raise ConfigurationError(f"The media store can't be written to ({type(error).__name__}).") from error
    return mark


def _read_storage_id(media: MediaStore) -> str | None:
    """The mark that this node finds; ``None`` if there is none or the store can't be read."""
    try:
        with media.open(STORAGE_ID_KEY) as file:
            return file.read().decode()
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - whatever a bucket raises, this node does not see the store
        logger.warning("the media store can't be read here: %s", type(error).__name__)
        return None


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
