"""Archives as objects `<scope>/<name>` of a bucket that speaks S3.

Four permissions suffice: PutObject, GetObject, DeleteObject, ListBucket. S3 knows no time of
access:
that of storing stands for it.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from agents.cache.backends.base import CacheError, Entry
from agents.cache.settings import Settings

_MIB: Final = 1024 * 1024
#: Stores may take minutes to put the parts of a big object together, without a word meanwhile.
_ANSWER_S: Final = 180
_PART_BYTES: Final = 16 * _MIB
_UPLOADS: Final = 4
_NOT_THERE: Final = frozenset({"404", "NoSuchKey", "NotFound"})


class Bucket:
    """One bucket. The SDK is imported with the first: an agent without S3 does not pay for it."""

    def __init__(self, settings: Settings) -> None:
        self._bucket = settings.bucket
        self._client = _client(settings)
        weakref.finalize(self, self._client.close)

    def spool(self) -> Path:
        """The system's place for temporary files."""
        return Path(tempfile.gettempdir())

    def entries(self, scope: str) -> list[Entry]:
        """List the objects below the scope."""
        prefix = f"{scope}/"
        found = []
        with self._told("cannot list"):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
                for one in page.get("Contents", ()):
                    when = one["LastModified"].timestamp()
                    name = one["Key"].removeprefix(prefix)
                    found.append(Entry(name, one["Size"], when, when))
        return found

    def open(self, scope: str, name: str) -> BinaryIO | None:
        """Begin to get an object."""
        from botocore.exceptions import ClientError

        with self._told("cannot read from"):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=f"{scope}/{name}")
            except ClientError as fault:
                if _code(fault) in _NOT_THERE:
                    return None
                raise
        return cast("BinaryIO", _Object(self, answer["Body"]))

    def put(self, scope: str, name: str, archive: Path) -> bool:
        """Upload a file, in parts if it is big: nobody sees it before the last one is there."""
        from boto3.s3.transfer import TransferConfig

        key = f"{scope}/{name}"
        with self._told("cannot write to"):
            if self._has(key):
                return False
            config = TransferConfig(
                multipart_threshold=_PART_BYTES,
                multipart_chunksize=_PART_BYTES,
                max_concurrency=_UPLOADS,
            )
            self._client.upload_file(str(archive), self._bucket, key, Config=config)
        return True

    def _has(self, key: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            self._client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as fault:
            if _code(fault) in _NOT_THERE:
                return False
            raise
        return True

    def remove(self, scope: str, name: str) -> None:
        """Delete an object."""
        with self._told("cannot remove from"):
            self._client.delete_object(Bucket=self._bucket, Key=f"{scope}/{name}")

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Make the SDK's many errors ours."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (Boto3Error, BotoCoreError, ClientError, OSError) as fault:
            raise CacheError(f"{what} the bucket {self._bucket}: {fault}") from fault


class _Object:
    """An object being read; a broken connection is no broken archive."""

    def __init__(self, bucket: Bucket, body: Any) -> None:
        self._bucket, self._body = bucket, body

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        with self._bucket._told("cannot read from"):
            return bytes(self._body.read(size))

    def close(self) -> None:
        """Hang up."""
        self._body.close()

    def __enter__(self) -> _Object:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _code(fault: Any) -> str:
    return str(fault.response.get("Error", {}).get("Code", ""))


def _client(settings: Settings) -> Any:
    """A client by explicit keys, the instance's role, a profile, or what the host has."""
    import boto3.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    more: dict[str, Any] = {"retries": {"mode": "standard", "max_attempts": 4}}
    if settings.url:
        # other stores than Amazon's want buckets in the path and know no trailing checksums
        more |= {
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
    try:
        session = boto3.session.Session(
            aws_access_key_id=settings.key or None,
            aws_secret_access_key=settings.secret or None,
            aws_session_token=settings.session_token or None,
            profile_name=settings.profile if not settings.key and settings.profile else None,
        )
        if settings.use_instance_profile and not settings.key:
            _take_role(session)
        region = settings.region or ("auto" if settings.url else session.region_name)
        return session.client(
            "s3",
            region_name=region or "us-east-1",
            endpoint_url=settings.url or None,
            config=Config(connect_timeout=10, read_timeout=_ANSWER_S, **more),
        )
    except (BotoCoreError, ValueError) as fault:
        raise CacheError(f"cannot use the bucket {settings.bucket}: {fault}") from fault


def _take_role(session: Any) -> None:
    """Use the credentials of the instance's role and no others."""
    from botocore.credentials import InstanceMetadataFetcher, InstanceMetadataProvider

    fetcher = InstanceMetadataFetcher(timeout=5, num_attempts=3)
    session._session._credentials = InstanceMetadataProvider(iam_role_fetcher=fetcher).load()
