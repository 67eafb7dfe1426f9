from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from builds import claims, triggers
from builds.models import Agent, Build, Repo, User
from pipeline.wire import Claim
from tests.builds.api.conftest import Api

pytestmark = pytest.mark.django_db


@pytest.fixture
def build(repo: Repo, user: User) -> Build:
    build = triggers.create(repo, user=user)
    assert build is not None
    return build


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "queue"),
        ("POST", "queue"),
        ("DELETE", "queue"),
        ("GET", "builds/incomplete"),
        ("GET", "builds/incomplete/v2"),
        ("GET", "system/stats"),
    ],
)
def test_the_system_is_for_administrators(api: Api, guest: Api, method: str, path: str) -> None:
    assert api.refused(method, path)[0] == 403
    assert guest.refused(method, path)[0] == 401


def test_the_queue_shows_waiting_and_running_stages(root: Api, build: Build) -> None:
    (stage,) = root.get("queue")

    assert (stage["build_id"], stage["status"]) == (build.pk, "pending")


def test_a_paused_queue_gives_nothing_out(
    root: Api, build: Build, make_agent: Callable[..., Agent]
) -> None:
    agent = make_agent()
    for _ in range(2):
        assert root.call("DELETE", "queue").status_code == 204
    assert claims.claim(agent, Claim("nonce-0001")) is None

    assert root.call("POST", "queue").status_code == 204

    assert claims.claim(agent, Claim("nonce-0002")) is not None


def test_incomplete_builds(root: Api, build: Build) -> None:
    (repo,) = root.get("builds/incomplete")
    (stage,) = root.get("builds/incomplete/v2")

    assert (repo["slug"], repo["build"]["number"]) == ("octocat/hello", 1)
    assert (stage["repo_slug"], stage["build_number"], stage["stage_name"]) == (
        "octocat/hello",
        1,
        "default",
    )


def test_stats_count(root: Api, build: Build, make_agent: Callable[..., Agent]) -> None:
    make_agent()

    stats = root.get("system/stats")

    assert stats["users"] == {"total": 2}
    assert stats["repos"] == {"active": 1}
    assert stats["builds"] == {"pending": 1, "running": 0, "total": 1}
    assert stats["pipelines"] == [
        {"subscribers": 1, "os": "linux", "arch": "amd64", "pending": 1, "running": 0}
    ]


@pytest.mark.parametrize(
    ("status", "text", "width", "colour"),
    [
        ("success", "success", "91", "#4c1"),
        ("failure", "failure", "83", "#e05d44"),
        ("killed", "failure", "83", "#e05d44"),
        ("running", "started", "87", "#dfb317"),
        ("error", "error", "76", "#9f9f9f"),
    ],
)
def test_the_badge_shows_the_newest_build_to_everyone(
    guest: Api, build: Build, status: str, text: str, width: str, colour: str
) -> None:
    Build.objects.update(status=status)

    answer = guest.call("GET", "badges/octocat/hello/status.svg")

    picture = ElementTree.fromstring(answer.content)
    assert answer["Content-Type"] == "image/svg+xml"
    assert picture.get("width") == width
    assert text in answer.content.decode()
    assert colour in answer.content.decode()


@pytest.mark.parametrize(
    "path", ["octocat/none/status.svg", "octocat/hello/status.svg?branch=none"]
)
def test_the_badge_of_nothing_is_200(guest: Api, build: Build, path: str) -> None:
    answer = guest.call("GET", f"badges/{path}")

    assert answer.status_code == 200
    assert ElementTree.fromstring(answer.content).get("width") == "75"


def test_build_monitors_read_xml(api: Api, guest: Api, build: Build) -> None:
    path = "badges/octocat/hello/cc.xml"
    project = ElementTree.fromstring(api.call("GET", path).content)[0]
    assert (project.get("activity"), project.get("lastBuildLabel")) == ("Building", "Unknown")
    Build.objects.update(status="success")

    project = ElementTree.fromstring(api.call("GET", path).content)[0]

    assert (project.get("lastBuildStatus"), project.get("lastBuildLabel")) == ("Success", "1")
    assert project.get("webUrl") == "http://ci.example.com/octocat/hello/1"
    assert guest.call("GET", path).status_code == 401
    Build.objects.all().delete()
    assert api.call("GET", path).status_code == 404
