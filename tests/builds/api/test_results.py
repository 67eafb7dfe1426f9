"""Tests and artifacts of a build: what agents send, and what people get."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from builds import artifacts, membership, reports, triggers
from builds.models import Build, Lease, Repo, Stage, TestCase, User
from tests.builds.api.conftest import Api
from tests.builds.api.test_agent import Call
from tests.builds.test_reports import pack, suite

pytestmark = pytest.mark.django_db
UPLOAD = "upload=0123456789abcdef"


@pytest.fixture
def build(repo: Repo, user: User) -> Build:
    made = triggers.create(repo, user=user)
    assert made is not None
    return made


@pytest.fixture
def call(build: Build) -> Call:
    token = membership.new_join_token("tests")
    answer = Call(token)("POST", "agents", {"name": "one", "version": "0.1.0"})
    return Call(answer.json()["token"])


@pytest.fixture
def lease(call: Call) -> str:
    return str(call("POST", "claims", {"nonce": "nonce-0001"}).json()["lease"])


def place(build: Build) -> str:
    return f"repos/{build.repo.slug}/builds/{build.number}"


# --- reports ---


def test_an_agent_sends_the_reports_of_a_step(call: Call, lease: str, build: Build) -> None:
    path = f"leases/{lease}/steps/1/reports"

    answer = call("POST", path, pack(a=suite(one="passed")))

    assert answer.json() == {"tests": 1, "v": 1}
    assert TestCase.objects.get().stage.build_id == build.pk
    assert call("POST", f"leases/{lease}/steps/9/reports", pack()).status_code == 403
    assert call("POST", path, b"nothing").json()["code"] == "reports:malformed"


def test_a_later_attempt_shuts_out_reports_of_an_earlier(call: Call, lease: str) -> None:
    Stage.objects.update(attempt=2)

    answer = call("POST", f"leases/{lease}/steps/1/reports", pack(a=suite(one="passed")))

    assert answer.status_code == 410
    assert not TestCase.objects.exists()


def test_the_api_sums_up(api: Api, build: Build) -> None:
    stage = Stage.objects.get(build=build)
    reports.store(stage, 1, pack(a=suite(one="passed", two="failed", three="skipped"), b="x"))

    found = api.get(f"{place(build)}/tests")

    assert [found[word] for word in ("total", "passed", "failed", "skipped")] == [3, 1, 1, 1]
    assert found["failures"] == [
        {"suite": "s", "name": "two", "stage": 1, "step": 1, "duration": 1.0, "message": "no"}
    ]
    assert [one["name"] for one in found["unread"]] == ["b"]
    assert found["flaky"] == []


def test_a_build_without_reports_has_no_tests(api: Api, build: Build) -> None:
    assert api.get(f"{place(build)}/tests")["total"] == 0


def test_strangers_see_nothing(guest: Api, build: Build) -> None:
    for path in ("tests", "artifacts", "artifacts/a"):
        assert guest.refused("GET", f"{place(build)}/{path}")[0] == 401


# --- artifacts ---


def end(data: bytes) -> str:
    return f"size={len(data)}&sha256={hashlib.sha256(data).hexdigest()}&mode={0o755}"


def test_an_agent_pushes_and_pulls(call: Call, lease: str) -> None:
    path = f"leases/{lease}/artifacts/{quote('dist/my app')}"

    first = call("PUT", f"{path}?{UPLOAD}&offset=0", b"one ")
    last = call("PUT", f"{path}?{UPLOAD}&offset=4&{end(b'one two')}", b"two")
    listed = call("GET", f"leases/{lease}/artifacts?name=dist")

    assert (first.json(), last.json()) == ({"next": 4, "v": 1}, {"next": 7, "v": 1})
    (file,) = listed.json()["files"]
    assert (file["path"], file["size_bytes"], file["mode"]) == ("dist/my app", 7, 0o755)
    assert call("GET", f"{path}?offset=4").content == b"two"
    assert call("GET", f"leases/{lease}/artifacts/none").status_code == 404


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("offset=x", 400),
        ("upload=x", 400),
        (f"{UPLOAD}&offset=0&size=1&sha256=zz", 400),
    ],
)
def test_a_malformed_part_is_refused(call: Call, lease: str, query: str, status: int) -> None:
    assert call("PUT", f"leases/{lease}/artifacts/a?{query}", b"1").status_code == status


def test_a_build_that_is_full_is_413(call: Call, lease: str, settings: Any) -> None:
    settings.ARTIFACT_LIMIT_BYTES = 1

    answer = call("PUT", f"leases/{lease}/artifacts/a?{UPLOAD}&offset=0", b"22")

    assert answer.status_code == 413


def test_a_lease_that_ended_is_410_and_anothers_403(
    call: Call, lease: str, make_agent: Callable[..., Any]
) -> None:
    assert call("GET", "leases/abc/artifacts").status_code == 403
    Lease.objects.update(state=Lease.CLOSED)
    assert call("GET", f"leases/{lease}/artifacts").status_code == 410
    assert call("PUT", f"leases/{lease}/artifacts/a?{UPLOAD}", b"1").status_code == 410


def test_people_list_and_download(api: Api, build: Build) -> None:
    stage, data = Stage.objects.get(build=build), b"<script>"
    digest = hashlib.sha256(data).hexdigest()
    upload = UPLOAD.partition("=")[2]
    artifacts.add(stage, "dist/é.html", upload, 0, data, artifacts.End(len(data), digest))

    (row,) = api.get(f"{place(build)}/artifacts")
    answer = api.call("GET", f"{place(build)}/artifacts/{quote('dist/é.html')}")

    assert (row["path"], row["size"], row["sha256"]) == ("dist/é.html", len(data), digest)
    assert row["expires"] > row["created"]
    assert b"".join(answer.streaming_content) == data
    assert answer["Content-Disposition"].startswith("attachment")
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["X-Content-Type-Options"] == "nosniff"


def test_what_is_not_there_is_404(api: Api, build: Build) -> None:
    assert api.refused("GET", f"{place(build)}/artifacts/none")[0] == 404
    assert api.refused("GET", f"{place(build)}/artifacts/../x")[0] == 404
    assert api.refused("GET", "repos/octocat/hello/builds/99/tests")[0] == 404
