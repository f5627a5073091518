"""Translation of a file system's or bucket's errors into ours: no room, no answer, or a file that is too large."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from pipeline.errors import StorageFull, StorageUnavailable, UploadTooLarge

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of a full disk and of a quota that is used up."""

FULL_CODES = frozenset(
    {
        "XMinioStorageFull",
        "XMinioAdminBucketQuotaExceeded",
        "QuotaExceeded",
        "InsufficientStorage",
        "StorageLimitExceeded",
    }
)
"""Error codes by which S3 servers report the same: MinIO (``cmd/api-errors.go``), Ceph (``rgw_common.cc``), others."""

BUCKET_LIBRARIES = ("aiobotocore", "botocore", "aiohttp")
"""Packages whose errors ``s3fs`` passes on unchanged: no connection, no credentials, a timeout."""

NO_FAILURES = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""Errors that a working store raises too; they are passed on unchanged."""

RETRY_S = 60
"""Seconds after which a client should retry when its recording could not be stored."""


@contextmanager
def translate_storage_errors(
    full: str = "The media store has no room left; try again later.",
) -> Iterator[None]:
    """Translate errors of a file system or bucket that are raised in the block.

    Args:
        full: message of ``StorageFull``.

    Raises:
        StorageFull: there is no room, or a quota is used up.
        UploadTooLarge: the file system can't hold a file of this size, however much room there is.
        StorageUnavailable: the store failed in any other way. An absent key stays ``FileNotFoundError``.
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
    """Return whether the error or one of its causes holds an S3 server's response that it has no room."""
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
