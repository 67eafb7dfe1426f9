"""Tests and artifacts on a build's page."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import zstandard
from django.test import Client

from builds import artifacts, reports
from tests.dashboard import seed

pytestmark = pytest.mark.django_db
REPORT = b"""<testsuite name="store">
<testcase name="uploads" time="2.5"><failure message="&lt;b&gt;got 1, want 3"/></testcase>
<testcase name="reads" time="0.5"/><testcase name="later"><skipped/></testcase>
</testsuite>"""


@pytest.fixture
def stage(web: Any) -> Any:
    build = seed.build(web, 1, "failure")
    return seed.stage(build, 1, "test", "failure")


def store(stage: Any, **files: bytes) -> None:
    head = json.dumps({"files": [[name, len(data)] for name, data in files.items()]})
    body = head.encode() + b"\n" + b"".join(files.values())
    reports.store(stage, 1, zstandard.compress(body))


def test_a_build_without_either_shows_neither(as_reader: Client, stage: Any) -> None:
    page = as_reader.get("/octocat/web/1").content.decode()

    assert "Artifacts" not in page
    assert 'id="tests-name"' not in page


def test_it_sums_up_tests(as_reader: Client, stage: Any) -> None:
    store(stage, a=REPORT, broken=b"<html/>")

    page = as_reader.get("/octocat/web/1").content.decode()

    assert "1 passed, 1 failed, 1 skipped" in page
    assert "&lt;b&gt;got 1, want 3" in page
    assert "cannot be read: not a JUnit report" in page
    assert "Flaky" not in page


def test_it_names_flaky_tests(as_reader: Client, web: Any) -> None:
    for number, report in enumerate((REPORT, REPORT.replace(b"<failure", b"<ok")), 1):
        build = seed.build(web, number, after="same")
        store(seed.stage(build, 1, "test"), a=report)

    page = as_reader.get("/octocat/web/2").content.decode()

    assert "Flaky in the last 50 builds (1)" in page
    assert "failed 1 of 2" in page


def test_it_lists_artifacts_that_can_be_downloaded(as_reader: Client, stage: Any) -> None:
    data = b"hello"
    end = artifacts.End(len(data), hashlib.sha256(data).hexdigest())
    artifacts.add(stage, "dist/my app", "0123456789abcdef", 0, data, end)

    page = as_reader.get("/octocat/web/1")
    url = page.context["files"][0].url
    answer = as_reader.get(url)

    assert f'href="{url}"' in page.content.decode()
    assert b"".join(answer.streaming_content) == data  # type: ignore[attr-defined]


def test_the_end_of_a_build_brings_them(as_reader: Client, stage: Any) -> None:
    store(stage, a=REPORT)

    live = as_reader.get("/octocat/web/1/live").content.decode()

    assert 'id="results" class="results" hx-swap-oob="true"' in live
