"""What every store does, over a directory and over S3; then each one's own."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from agents.cache.backends.base import Backend, CacheError
from agents.cache.backends.directory import Directory
from agents.cache.backends.registry import open_backend
from agents.cache.settings import Settings


@pytest.fixture(params=["directory", "s3"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "directory":
        return Directory(tmp_path / "cache")
    return open_backend(request.getfixturevalue("s3"))


@pytest.fixture
def bucket(s3: Settings) -> Any:
    return open_backend(s3)


def put(backend: Backend, scope: str, name: str, data: bytes = b"data") -> bool:
    file = backend.spool() / f"test-{os.getpid()}-{time.monotonic_ns()}"
    file.write_bytes(data)
    try:
        return backend.put(scope, name, file)
    finally:
        file.unlink()


def names(backend: Backend, scope: str) -> list[str]:
    return sorted(entry.name for entry in backend.entries(scope))


def content(backend: Backend, scope: str, name: str) -> bytes | None:
    stream = backend.open(scope, name)
    if stream is None:
        return None
    with stream:
        return stream.read()


# --- every store ---


def test_what_was_put_is_there(backend: Backend) -> None:
    before = time.time()
    assert put(backend, "p", "key", b"12345")
    assert content(backend, "p", "key") == b"12345"
    (entry,) = backend.entries("p")
    assert (entry.name, entry.size) == ("key", 5)
    assert before - 5 <= entry.stored <= time.time() + 5


def test_a_put_never_overwrites(backend: Backend) -> None:
    assert put(backend, "p", "key", b"first")
    assert not put(backend, "p", "key", b"second")
    assert content(backend, "p", "key") == b"first"


def test_nothing_is_there_at_first(backend: Backend) -> None:
    assert backend.entries("p") == []
    assert content(backend, "p", "key") is None
    backend.remove("p", "key")


def test_scopes_are_apart(backend: Backend) -> None:
    put(backend, "p", "key", b"mine")
    put(backend, "p2", "key", b"other")
    put(backend, "p.forks/7", "key", b"fork")
    assert names(backend, "p") == ["key"]
    assert content(backend, "p", "key") == b"mine"
    assert names(backend, "p.forks/7") == ["key"]


def test_a_pool_lists_and_removes_what_is_in_its_scopes(backend: Backend) -> None:
    put(backend, "p.forks/7", "a")
    put(backend, "p.forks/8", "b")
    assert names(backend, "p.forks") == ["7/a", "8/b"]
    backend.remove("p.forks", "7/a")
    assert names(backend, "p.forks") == ["8/b"]


@pytest.mark.parametrize("name", [".hidden", "a b", "ü+%2F", "c++-[1]*?", "x" * 200, "..."])
def test_keys_may_have_any_character(backend: Backend, name: str) -> None:
    assert put(backend, "p", name)
    assert names(backend, "p") == [name]
    assert content(backend, "p", name) == b"data"
    backend.remove("p", name)
    assert backend.entries("p") == []


# --- directories ---


def test_opening_a_file_is_an_access(tmp_path: Path) -> None:
    store = Directory(tmp_path)
    put(store, "p", "key")
    os.utime(tmp_path / "p" / "key", (1000, 2000))
    content(store, "p", "key")
    (entry,) = store.entries("p")
    assert entry.stored == 2000
    assert entry.accessed > 3000


def test_a_directory_is_for_the_agents_eyes_only(tmp_path: Path) -> None:
    store = Directory(tmp_path / "cache")
    put(store, "p", "key")
    assert (tmp_path / "cache" / "p").stat().st_mode & 0o077 == 0


def test_archives_that_were_never_finished_go(tmp_path: Path) -> None:
    store = Directory(tmp_path)
    old, new = store.spool() / "old", store.spool() / "new"
    for file in (old, new):
        file.write_bytes(b"x")
    os.utime(old, (0, 0))
    store.spool()
    assert (old.exists(), new.exists()) == (False, True)


def test_a_store_that_ends_meanwhile_disturbs_nobody(tmp_path: Path) -> None:
    store = Directory(tmp_path / "cache")
    gone = store.spool() / "store-gone"  # listed, and not there when it is looked at
    gone.symlink_to(tmp_path / "nowhere")
    assert store.spool().is_dir()


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot use the directory"):
        Directory(tmp_path / "file").spool()


def test_a_key_too_long_for_a_file_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="too long"):
        put(Directory(tmp_path), "p", "ü" * 100)


# --- S3 ---

#: What IAM calls the operations of the SDK.
PERMISSION = {
    "ListObjectsV2": "ListBucket",
    "HeadObject": "GetObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
}


@pytest.fixture
def asked(bucket: Any) -> Iterator[set[str]]:
    """Permissions that a bucket needed."""
    found: set[str] = set()

    def note(model: Any, **_: Any) -> None:
        found.add(PERMISSION.get(model.name, model.name))

    bucket._client.meta.events.register("before-call.s3", note)
    yield found


def test_four_permissions_suffice(bucket: Any, asked: set[str]) -> None:
    put(bucket, "p", "small")
    put(bucket, "p", "big", b"x" * 40 * 1024 * 1024)
    content(bucket, "p", "big")
    content(bucket, "p", "none")
    bucket.entries("p")
    bucket.remove("p", "big")
    assert asked == {"PutObject", "GetObject", "ListBucket", "DeleteObject"}


def test_a_listing_has_many_pages(bucket: Any) -> None:
    for number in range(7):
        put(bucket, "p", f"key-{number}")
    paginate = bucket._client.get_paginator("list_objects_v2").paginate
    pages = list(paginate(Bucket=bucket._bucket, PaginationConfig={"PageSize": 3}))
    assert len(pages) == 3
    assert len(bucket.entries("p")) == 7


def test_a_bucket_that_is_not_there_is_told(s3: Settings) -> None:
    store = open_backend(replace(s3, bucket="no-such-bucket-here"))
    with pytest.raises(CacheError, match="no-such-bucket-here"):
        store.entries("p")


def test_a_store_that_does_not_answer_is_told(s3: Settings) -> None:
    store = open_backend(replace(s3, url="http://127.0.0.1:9"))
    with pytest.raises(CacheError, match="cannot list"):
        store.entries("p")


def test_credentials_of_a_profile(
    s3: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[ci]\naws_access_key_id = from-file\naws_secret_access_key = word\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    store: Any = open_backend(replace(s3, key="", secret="", profile="ci"))
    assert store._client._request_signer._credentials.access_key == "from-file"


def test_a_profile_that_is_not_there_is_told(s3: Settings) -> None:
    with pytest.raises(CacheError, match="profile"):
        open_backend(replace(s3, key="", secret="", profile="no-such-profile"))


def test_a_policy_of_four_permissions_is_enough(s3: Settings) -> None:
    with enforced(s3, "PutObject", "GetObject", "DeleteObject", "ListBucket") as limited:
        store = open_backend(limited)
        assert put(store, "p", "small")
        assert not put(store, "p", "small")
        assert content(store, "p", "small") == b"data"
        assert content(store, "p", "none") is None
        assert put(store, "p", "big", b"x" * 40 * 1024 * 1024)  # in parts
        assert names(store, "p") == ["big", "small"]
        store.remove("p", "small")
        store.remove("p", "big")
        assert names(store, "p") == []


def test_a_policy_that_forbids_is_told(s3: Settings) -> None:
    with enforced(s3, "GetObject", "ListBucket") as limited:
        store = open_backend(limited)
        assert names(store, "p") == []
        with pytest.raises(CacheError, match="cannot write to the bucket"):
            put(store, "p", "small")


@contextmanager
def enforced(settings: Settings, *permissions: str) -> Iterator[Settings]:
    """Settings of a user who may do this and nothing else, on a store that looks at policies."""
    about: dict[str, Any] = {
        "endpoint_url": settings.url,
        "region_name": "us-east-1",
        "aws_access_key_id": settings.key,
        "aws_secret_access_key": settings.secret,
    }
    bucket = f"arn:aws:s3:::{settings.bucket}"
    statement = {
        "Effect": "Allow",
        "Action": [f"s3:{name}" for name in permissions],
        "Resource": [bucket, f"{bucket}/*"],
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    user = f"ci-{settings.bucket}"
    with closing(boto3.client("iam", **about)) as iam:
        iam.create_user(UserName=user)
        document = json.dumps(policy)
        iam.put_user_policy(UserName=user, PolicyName="cache", PolicyDocument=document)
        key = iam.create_access_key(UserName=user)["AccessKey"]
    check = f"{settings.url}/moto-api/reset-auth"
    httpx.post(check, content=b"0").raise_for_status()
    try:
        yield replace(settings, key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    finally:
        httpx.post(check, content=b"inf").raise_for_status()
