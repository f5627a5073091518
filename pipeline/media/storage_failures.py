"""Failures of a file system or bucket, by what can be done about them: wait for room, wait for an answer, or fail."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from pipeline.errors import StorageFull, StorageUnavailable, UploadTooLarge

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""No room on the disk, or none left of a quota."""

FULL_CODES = frozenset(
    {
        "XMinioStorageFull",
        "XMinioAdminBucketQuotaExceeded",
        "QuotaExceeded",
        "InsufficientStorage",
        "StorageLimitExceeded",
    }
)
"""The same in the words of S3 servers: MinIO (``cmd/api-errors.go``), Ceph (``rgw_common.cc``), and others."""

BUCKET_LIBRARIES = ("aiobotocore", "botocore", "aiohttp")
"""Where errors come from that ``s3fs`` passes on as they are: no connection, no credentials, a time-out."""

NO_FAILURES = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""Answers of a store that works."""

RETRY_S = 60
"""When a client is to ask again whose recording could not be stored."""


@contextmanager
def translate_storage_errors(
    full: str = "The media store has no room left; try again later.",
) -> Iterator[None]:
    """Raise our error for what a file system or bucket says.

    Args:
        full: the sentence for a store without room.

    Raises:
        StorageFull: no room, or a quota is used up.
        UploadTooLarge: the file system can't hold a file of this size, however much room there is.
        StorageUnavailable: anything else that is wrong with the store. An absent key stays ``FileNotFoundError``.
    """
    try:
        yield
    except NO_FAILURES:
        raise
    except OSError as error:
        if error.errno in FULL or _is_full_bucket(error):
            raise StorageFull(full, RETRY_S) from error
        if error.errno == errno.EFBIG:
            raise UploadTooLarge("The media store can't hold a file of this size.") from error
        raise StorageUnavailable("The media store does not answer; try again later.", RETRY_S) from error
    except Exception as error:
        if not type(error).__module__.startswith(BUCKET_LIBRARIES):
            raise
        if _is_full_bucket(error):
            raise StorageFull(full, RETRY_S) from error
        raise StorageUnavailable("The media store does not answer; try again later.", RETRY_S) from error


def _is_full_bucket(error: BaseException | None) -> bool:
    """Return whether an S3 server's answer, here or among the causes, says that it has no room."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping) and _is_full_response(response):
            return True
        error = error.__cause__
    return False


def _is_full_response(response: Mapping[str, Any]) -> bool:
    code = response.get("Error", {}).get("Code")
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return code in FULL_CODES or status == HTTPStatus.INSUFFICIENT_STORAGE
