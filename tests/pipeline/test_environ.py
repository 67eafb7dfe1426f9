from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.environ import build_link, calver, environ, git, refreshed, semver
from pipeline.facts import BuildFacts, Facts, RepoFacts, StageFacts, System

REPO = RepoFacts(
    slug="octocat/hello-world",
    namespace="octocat",
    name="hello-world",
    scm="git",
    git_http_url="https://git.example.com/octocat/hello-world.git",
    git_ssh_url="git@git.example.com:octocat/hello-world.git",
    link="https://git.example.com/octocat/hello-world",
    private=True,
    visibility="private",
)
PUSH = BuildFacts(
    number=7,
    link="https://git.example.com/octocat/hello-world/commit/b1",
    message="Add a file\n\nwith two lines",
    before="a0",
    after="b1",
    ref="refs/heads/main",
    source="main",
    target="main",
    author_login="octocat",
    author_name="The Octocat",
    author_email="octocat@example.com",
    author_avatar="https://git.example.com/octocat.png",
    sender="octocat",
    status="running",
    created=1600000000,
    started=1600000001,
)
EVENTS = {
    "push": PUSH,
    "tag": dataclasses.replace(
        PUSH, event="tag", action="create", ref="refs/tags/v2021.4.1-rc.1+x", source="", target=""
    ),
    "pull_request": dataclasses.replace(
        PUSH,
        event="pull_request",
        action="synchronized",
        ref="refs/pull/42/head",
        source="feature/x",
        title="A feature",
        source_repo="someone/hello-world",
    ),
    "cron": dataclasses.replace(
        PUSH, event="cron", trigger="@cron", cron="nightly", source="", sender=""
    ),
    "custom": dataclasses.replace(
        PUSH, event="custom", trigger="octocat", params={"LEVEL": "3"}, debug=True
    ),
    "promote": dataclasses.replace(
        PUSH, event="promote", parent=6, deploy_to="production", deploy_id=12
    ),
    "rollback": dataclasses.replace(PUSH, event="rollback", parent=5, deploy_to="production"),
}
STAGE = StageFacts(
    number=2,
    name="test",
    machine="agent-1",
    variant="v8",
    version=4,
    started=1600000010,
    depends_on=("lint", "docs"),
)


@pytest.mark.parametrize("event", EVENTS)
def test_environment_of_an_event(event: str, golden: Callable[[str, Any], None]) -> None:
    facts = Facts(REPO, EVENTS[event], STAGE, System("https", "ci.example.com", "ci1", "1.0.0"))
    golden(f"environ/{event}", environ(facts))


def test_failed_stages_show() -> None:
    stage = dataclasses.replace(STAGE, failed_stages=("lint", "docs"))
    values = environ(Facts(REPO, PUSH, stage))
    assert values["DRONE_BUILD_STATUS"] == "failure"
    assert values["DRONE_FAILED_STAGES"] == "lint,docs"
    assert values["DRONE_STAGE_STATUS"] == "success"


def test_unset_times_are_the_latest_known_one() -> None:
    facts = Facts(REPO, dataclasses.replace(PUSH, started=0), dataclasses.replace(STAGE, started=0))
    values = environ(facts)
    assert values["DRONE_BUILD_STARTED"] == values["DRONE_STAGE_FINISHED"] == "1600000000"


def test_a_step_cannot_override_what_is_refreshed() -> None:
    names = refreshed(Facts(REPO, PUSH))
    assert {"DRONE_STEP_NAME", "DRONE_BRANCH", "DRONE_STAGE_NAME", "CI_BUILD_EVENT"} <= names
    assert not {"DRONE_REPO", "CI", "DRONE_TAG", "DRONE_BUILD_LINK", "DRONE_WORKSPACE"} & names


def test_link() -> None:
    facts = Facts(REPO, PUSH, system=System("https", "ci.example.com"))
    assert build_link(facts) == "https://ci.example.com/octocat/hello-world/7"
    assert build_link(dataclasses.replace(facts, system=System(host=""))) == ""
    assert build_link(dataclasses.replace(facts, repo=RepoFacts(""))) == ""


def test_git_variables() -> None:
    assert git(PUSH, skip_verify=True, trace=True) == {
        "GIT_AUTHOR_NAME": "The Octocat",
        "GIT_AUTHOR_EMAIL": "octocat@example.com",
        "GIT_COMMITTER_NAME": "The Octocat",
        "GIT_COMMITTER_EMAIL": "octocat@example.com",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSL_NO_VERIFY": "true",
        "GIT_TRACE": "true",
    }
    assert git(BuildFacts())["GIT_COMMITTER_NAME"] == "drone"
    assert git(BuildFacts())["GIT_AUTHOR_EMAIL"] == "noreply@drone"


TAGS = [
    "v1.2.3", "1.2.3", "1.2.3-rc.1", "1.2.3-alpha-2+build.5", "1.2.3+5", "01.002.3", "vv1.2.3",
    "1.2", "1", "", "v", "1.2.3.4", "1.2.x", "1.2.3-~", "2019.1", "v2021.04.1-beta", "18.1.1",
    "19.1", "99.12.31", "100.1", "2018.1.1", "9998.1", "9999.1", "2020.x.1", "2020.1.x-y-z",
    "release-1", "1.2.3-", "1." + "9" * 5000 + ".0",
]  # fmt: skip


def test_versions_of_tags(golden: Callable[[str, Any], None]) -> None:
    golden("environ/versions", {tag[:20]: semver(tag) | calver(tag) for tag in TAGS})


@given(st.text(alphabet="v0123456789.-+a~", max_size=30))
def test_any_tag_has_versions_or_none(tag: str) -> None:
    assert len(semver(tag)) in {1, 5, 6, 7}
    assert len(calver(tag)) in {0, 6, 7}
