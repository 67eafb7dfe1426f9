"""Where compacted logs lie: files, an S3 bucket, or rows of the database.

A log's row holds its object's key, and the key says which store has it (`file:`, `s3:`, or `rows`),
so that old logs stay readable when the setting changes.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from django.conf import settings

ROWS: Final = "rows"
_PART_BYTES: Final = 8 * 1024 * 1024


class Store(Protocol):
    """Keeps whole objects. A key is what `key` made; every verb may be repeated."""

    def key(self, step_id: int) -> str:
        """The key of a step's log in this store."""

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        """Store an object of all parts, durably and at once: a reader sees the old or the new."""

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length) of an object. Raises: OSError if it is not there."""

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""


class Files:
    """Files in a directory, a thousand steps per folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def key(self, step_id: int) -> str:
        return f"file:{step_id // 1000}/{step_id}.zst"

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            try:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        _sync_folder(path.parent)

    def read(self, key: str, offset: int, length: int) -> bytes:
        with self._path(key).open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._root / key.removeprefix("file:")


class S3:
    """Objects of an S3-compatible bucket: `s3://bucket/prefix`, credentials of the usual chain."""

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def key(self, step_id: int) -> str:
        return f"s3:{self._prefix}{step_id}.zst"

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        with tempfile.SpooledTemporaryFile(max_size=_PART_BYTES) as file:
            for part in parts:
                file.write(part)
            file.seek(0)
            self._client.upload_fileobj(file, self._bucket, key.removeprefix("s3:"))

    def read(self, key: str, offset: int, length: int) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._client.get_object(
                Bucket=self._bucket,
                Key=key.removeprefix("s3:"),
                Range=f"bytes={offset}-{offset + length - 1}",
            )
            body: bytes = answer["Body"].read()
        except (BotoCoreError, ClientError) as fault:
            raise OSError(f"{key}: {fault}") from fault
        return body

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=key.removeprefix("s3:"))


def chosen() -> Store | None:
    """The store that new objects go to; None where logs stay in the database.

    `settings.LOG_STORE` is empty (files below the data dir), `database`, or `s3://bucket/prefix`.
    """
    place = _place()
    if place == "database":
        return None
    if place.startswith("s3://"):
        return _bucket(place, _endpoint())
    return Files(Path(settings.DATA_DIR) / "logs")


def by_key(key: str) -> Store:
    """The store that has the object `key`."""
    if key.startswith("s3:"):
        return _bucket(_place(), _endpoint())
    return Files(Path(settings.DATA_DIR) / "logs")


def _place() -> str:
    return getattr(settings, "LOG_STORE", "") or ""


def _endpoint() -> str:
    return getattr(settings, "LOG_STORE_ENDPOINT", "") or ""


@functools.lru_cache(maxsize=4)
def _bucket(place: str, endpoint: str) -> S3:
    import boto3

    url = urlsplit(place)
    client = boto3.client("s3", endpoint_url=endpoint or None)
    return S3(client, url.netloc, url.path.strip("/"))


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
