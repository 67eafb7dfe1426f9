"""Where compacted logs lie: files, an S3 bucket, or rows of the database.

A log's row holds its object's key, and the key says which store has it (`file:`, `s3://` or
`rows`), so that old logs stay readable when the setting changes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from django.conf import settings

from pipeline.errors import PlatformError

ROWS: Final = "rows"
_S3: Final = "s3://"
_PART_BYTES: Final = 8 * 1024 * 1024


class StoreFault(PlatformError):
    """The store does not answer, or does not have what it should."""


class Store(Protocol):
    """Keeps whole objects. A key is what `key` made; every verb may be repeated."""

    def key(self, step_id: int) -> str:
        """The key of a step's log in this store."""

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        """Store an object of all parts, durably and at once: a reader sees the old or the new."""

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length) of an object. Raises: StoreFault."""

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
        try:
            with self._path(key).open("rb") as file:
                return os.pread(file.fileno(), length, offset)
        except OSError as fault:
            raise StoreFault(f"{key}: {fault.strerror}") from fault

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._root / key.removeprefix("file:")


class S3:
    """Objects of S3-compatible buckets; a key is the object's whole `s3://bucket/name` address.

    Credentials come from the usual AWS chain.
    """

    def __init__(self, client: Any, place: str = "") -> None:
        self._client = client
        self._place = place.rstrip("/")

    def key(self, step_id: int) -> str:
        return f"{self._place}/{step_id}.zst"

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        with tempfile.SpooledTemporaryFile(max_size=_PART_BYTES) as file:
            for part in parts:
                file.write(part)
            file.seek(0)
            with _faults(key):
                self._client.upload_fileobj(file, *_split(key))

    def read(self, key: str, offset: int, length: int) -> bytes:
        bucket, name = _split(key)
        part = f"bytes={offset}-{offset + length - 1}"
        with _faults(key):
            answer = self._client.get_object(Bucket=bucket, Key=name, Range=part)
            body: bytes = answer["Body"].read()
        return body

    def delete(self, key: str) -> None:
        bucket, name = _split(key)
        with _faults(key):
            self._client.delete_object(Bucket=bucket, Key=name)


@contextlib.contextmanager
def _faults(key: str) -> Iterator[None]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as fault:
        raise StoreFault(f"{key}: {fault}") from fault


def _split(key: str) -> tuple[str, str]:
    bucket, _, name = key.removeprefix(_S3).partition("/")
    return bucket, name


def chosen() -> Store | None:
    """The store that new objects go to; None where logs stay in the database.

    `settings.LOG_STORE` is empty (files below the data dir), `database`, or `s3://bucket/prefix`.
    """
    place: str = settings.LOG_STORE
    if place == "database":
        return None
    if place.startswith(_S3):
        return S3(_client(settings.LOG_STORE_ENDPOINT), place)
    return _files()


def by_key(key: str) -> Store:
    """The store that has the object `key`."""
    return S3(_client(settings.LOG_STORE_ENDPOINT)) if key.startswith(_S3) else _files()


def _files() -> Files:
    return Files(Path(settings.DATA_DIR) / "logs")


@functools.lru_cache(maxsize=4)
def _client(endpoint: str) -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=endpoint or None)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
