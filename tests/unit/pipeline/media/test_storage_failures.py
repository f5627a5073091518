from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from pipeline.errors import StorageFull, StorageUnavailable, UploadTooLarge
from pipeline.media.storage_failures import translate_storage_errors


class ClientError(Exception):
    """An error like botocore's, with a server's response."""

    __module__ = "botocore.exceptions"

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.response: dict[str, Any] = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def translated(status: int, code: str) -> OSError:
    """Return the error by which s3fs reports a response that it does not know: an ``EIO`` with its cause."""
    error = system(errno.EIO)
    error.__cause__ = ClientError(status, code)
    return error


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (system(errno.ENOSPC), StorageFull),
        (system(errno.EDQUOT), StorageFull),
        (system(errno.EFBIG), UploadTooLarge),
        (system(errno.EIO), StorageUnavailable),
        (system(errno.EROFS), StorageUnavailable),
        (system(errno.ESTALE), StorageUnavailable),
        (PermissionError(errno.EACCES, "no"), StorageUnavailable),
        (ConnectionResetError(), StorageUnavailable),
        (translated(507, "XMinioStorageFull"), StorageFull),
        (translated(400, "XMinioAdminBucketQuotaExceeded"), StorageFull),
        (translated(403, "QuotaExceeded"), StorageFull),
        (translated(507, "Whatever"), StorageFull),
        (translated(500, "InternalError"), StorageUnavailable),
        (ClientError(507, "InsufficientStorage"), StorageFull),
        (ClientError(503, "SlowDown"), StorageUnavailable),
        (FileNotFoundError("t1/source"), FileNotFoundError),
        (ZeroDivisionError(), ZeroDivisionError),
        (StorageFull("Full.", 60), StorageFull),
    ],
    ids=repr,
)
def test_each_failure_says_what_can_be_done(error: Exception, raised: type[Exception]) -> None:
    with pytest.raises(raised) as caught, translate_storage_errors():
        raise error
    assert type(caught.value) is raised
