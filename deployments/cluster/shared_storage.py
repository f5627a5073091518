"""Checks that every node of the cluster uses the same media store and the same database.

A folder may be shared or local to each node, and ``localhost`` is another machine on every node. Neither mistake shows
on the node that builds the application. So that node writes an id to the media store and holds one in the database, and
every node reads both. On a node that joins later, each replica reads the id of the media store when it starts. A
mismatch is a ``ConfigurationError``, before a recording is lost because of it.
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


def verify_shared_storage(settings: Settings) -> str:
    """Check from every node that is up that it uses this node's media store and database.

    Returns:
        The media store's id, for ``verify_storage`` on every node from now on.

    Raises:
        ConfigurationError: a node uses another store or database; the message names the nodes.
    """
    return asyncio.run(_verify_shared_storage(settings))


def verify_storage(media: MediaStore, storage_id: str | None) -> None:
    """Raise ``ConfigurationError`` if this node's media store has another id. Block for one read.

    ``None``, the id in a cluster of one node, is not checked.
    """
    if storage_id is not None and _read_storage_id(media) != storage_id:
        raise ConfigurationError(f"This node {OTHER_STORE}.")


async def _verify_shared_storage(settings: Settings) -> str:
    storage_id = await _ensure_storage_id(media_store(settings))
    if len(alive_nodes()) < 2:
        return storage_id
    database_id = f"murmuration-{storage_id}"
    try:
        async with hold_database_id(settings.database_url, database_id):
            answers = await asyncio.to_thread(run_on_all, partial(_check_node, settings, storage_id, database_id))
    except DatabaseUnavailable as error:
        logger.warning("the check that all nodes use one database failed: %s", error)
        answers = await asyncio.to_thread(run_on_all, partial(_check_node, settings, storage_id, None))
    if problems := [problem for node, answer in answers for problem in _problems(node, answer)]:
        raise ConfigurationError(" ".join(problems))
    return storage_id


def _problems(node: str, answer: tuple[bool, bool] | RayError) -> list[str]:
    """Return a sentence for each storage that a node does not share; none for a node that has gone."""
    if isinstance(answer, RayError):
        logger.warning("node %s did not answer the check of its storage: %s", node, type(answer).__name__)
        return []
    same_store, same_database = answer
    checks = ((same_store, OTHER_STORE), (same_database, OTHER_DATABASE))
    return [f"Node {node} {sentence}." for is_shared, sentence in checks if not is_shared]


def _check_node(settings: Settings, storage_id: str, database_id: str | None) -> tuple[bool, bool]:
    """Return whether this node, on which Ray runs the function, reads each id; no database id counts as read."""
    same_store = _read_storage_id(media_store(settings)) == storage_id
    return same_store, database_id is None or asyncio.run(database_id_is_held(settings.database_url, database_id))


async def _ensure_storage_id(media: MediaStore) -> str:
    """Return the store's id; write a new one if there is none."""
    known = _read_storage_id(media)
    if known:
        return known
    storage_id = uuid4().hex
    try:
        await media.write(STORAGE_ID_KEY, _once(storage_id.encode()))
    except Exception as error:
        raise ConfigurationError(
            f"The media store can't be written to ({type(error).__name__}): check media.url and its permissions."
        ) from error
    return storage_id


def _read_storage_id(media: MediaStore) -> str | None:
    """Return the store's id as this node reads it; ``None`` if there is none or the store can't be read."""
    try:
        with media.open(STORAGE_ID_KEY) as file:
            return file.read().decode()
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - whatever a bucket raises, this node can't use the store
        logger.warning("this node can't read the media store: %s", type(error).__name__)
        return None


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
