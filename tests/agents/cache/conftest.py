"""A store of S3 over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from agents.cache.settings import Settings


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_url: str) -> Settings:
    """Settings of a bucket that is new."""
    found = Settings(
        "s3", bucket=f"b-{uuid.uuid4().hex}", url=s3_url, key="id", secret="word", project="p"
    )
    client = boto3.client(
        "s3",
        endpoint_url=s3_url,
        region_name="us-east-1",
        aws_access_key_id="id",
        aws_secret_access_key="word",
    )
    client.create_bucket(Bucket=found.bucket)
    client.close()
    return found
