"""A store of S3 over HTTP."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.loaders import JSONFileLoader
from moto.server import ThreadedMotoServer

from agents.cache.settings import Settings


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session", autouse=True)
def models() -> Iterator[None]:
    """Read the description of S3, a megabyte, once instead of for each client."""
    load = JSONFileLoader.load_file
    loaded = functools.cache(lambda path: load(JSONFileLoader(), path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _loader, path: loaded(path))
        yield


@pytest.fixture(scope="session")
def owner(s3_url: str, models: None) -> Iterator[Any]:
    """Who makes buckets."""
    client = boto3.client(
        "s3",
        endpoint_url=s3_url,
        region_name="us-east-1",
        aws_access_key_id="id",
        aws_secret_access_key="word",
    )
    yield client
    client.close()


@pytest.fixture
def s3(s3_url: str, owner: Any) -> Settings:
    """Settings of a bucket that is new."""
    bucket = f"b-{uuid.uuid4().hex}"
    owner.create_bucket(Bucket=bucket)
    return Settings("s3", bucket=bucket, url=s3_url, key="id", secret="word", project="p")
