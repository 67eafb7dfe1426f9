"""Whole stages in containers, through the agent, from the claim to the last report."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agents.agent import Agent
from agents.policy import amend
from pipeline import states
from pipeline.spec import CLONE, SERVICE, CloneSpec, Netrc, StageSpec, StepSpec
from tests.agents import conftest
from tests.agents.double import Double, Lease
from tests.images import BUSYBOX, busybox_image

pytestmark = [pytest.mark.service, pytest.mark.xdist_group("docker")]

Make = Callable[..., Agent]


@pytest.fixture(scope="module", autouse=True)
def image() -> str:
    return busybox_image()


def step(name: str, *commands: str, after: str = "", **more: object) -> StepSpec:
    about = {"image": BUSYBOX, "depends_on": (after,) if after else (), **more}
    return conftest.step(name, *commands, **about)


def stage(*steps: StepSpec, **more: object) -> StageSpec:
    return replace(conftest.stage(*steps, **more), type="docker")


def run(agent: Agent, double: Double, spec: StageSpec) -> Lease:
    agent.start()
    double.add(spec)
    agent.serve()
    return double.only_lease()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "hello.txt").write_text("hello from git\n")
    for words in (
        ["init", "-q", "-b", "main"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "one"],
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def test_a_stage_clones_serves_fails_and_goes_on(
    make_agent: Make, double: Double, repository: Path
) -> None:
    spec = stage(
        StepSpec(0, "clone", CLONE),
        step("data", "echo pong | nc -l -p 9000", kind=SERVICE, detach=True, after="clone"),
        step("read", "cat hello.txt", "echo $GREETING > new.txt", after="clone"),
        step(
            "ask",
            "until nc data 9000 < /dev/null | grep pong; do sleep 0.1; done",
            "cat new.txt",
            after="read",
        ),
        step("fail", "exit 3", after="ask"),
        step("skipped", "echo never", after="fail"),
        step("mend", "echo $DRONE_BUILD_STATUS", run="on-failure", after="fail"),
        clone=CloneSpec(remote=str(repository), ref="refs/heads/main", branch="main"),
        environment={"GREETING": "hi there"},
    )

    lease = run(make_agent(isolation="docker"), double, spec)

    report = lease.last
    assert (report.status, report.exit_code) == (states.FAILURE, 3)
    assert {one.number: one.status for one in report.steps} == {
        1: states.SUCCESS,
        2: states.SUCCESS,
        3: states.SUCCESS,
        4: states.SUCCESS,
        5: states.FAILURE,
        6: states.SKIPPED,
        7: states.SUCCESS,
    }
    assert "hello from git\n" in lease.text(3)
    assert lease.text(4).endswith("pong\n+ cat new.txt\nhi there\n")
    assert lease.text(7).endswith("failure\n")


def test_the_credentials_of_git_reach_steps_and_not_their_logs(
    make_agent: Make, double: Double
) -> None:
    spec = stage(
        step("show", "cat ~/.netrc", "echo ${DRONE_NETRC_PASSWORD:-gone}"),
        netrc=Netrc("git.example.com", "octo", "hunter2"),
        masks=("hunter2",),
    )

    lease = run(make_agent(isolation="docker"), double, spec)

    assert "machine git.example.com login octo password ******\n" in lease.text(1)
    assert lease.text(1).endswith("gone\n")


def test_a_refused_stage_says_which_rule_of_which_agent(make_agent: Make, double: Double) -> None:
    agent = make_agent(isolation="docker", limit_repos=("others/*",))

    lease = run(agent, double, stage(step("never", "true")))

    assert lease.last.status == states.ERROR
    assert "agent agent-of-tests refuses this stage by its rule limit-repos" in lease.last.error


def test_an_image_that_cannot_be_pulled_is_the_steps_error(
    make_agent: Make, double: Double
) -> None:
    spec = stage(step("pull", "true", image="localhost:1/nothing:1"))

    lease = run(make_agent(isolation="docker"), double, spec)

    assert (lease.last.steps[0].status, lease.last.steps[0].exit_code) == (states.ERROR, 255)
    assert "localhost:1" in lease.last.steps[0].error


def test_amending_twice_changes_nothing() -> None:
    from agents.options import Options

    options = Options(server="http://ci", token="x", plugin_namespace="plugins")
    spec = stage(step("slack", image="slack"), netrc=Netrc("a", "b", "c"))

    once = amend(spec, options)

    assert amend(once, options) == once
