from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from builds import membership, transitions
from builds.models import Agent, Build, Config, Repo, ServerState, Stage
from builds.queue import PAUSED, next_stage, why_waiting
from pipeline import states
from pipeline.routing import queue_name


@pytest.fixture
def make_repo(make_repo: Callable[..., Repo]) -> Callable[..., Repo]:
    """Rows only: nothing here reads the repository."""
    return functools.partial(make_repo, with_git=False)


def pend(repo: Repo, priority: int = 0, **fields: Any) -> Stage:
    """A pending stage of a build of its own."""
    values: dict[str, Any] = {"type": "exec", "os": "linux", "arch": "amd64", **fields}
    labels = values.get("labels", {})
    queue = queue_name(values["type"], values["os"], values["arch"], labels)
    stage = Stage(number=1, queue=queue, **{"name": "default", **values})
    build = Build(repo=repo, event="push", priority=priority)
    transitions.create_build(build, [stage], Config(data=""))
    return stage


def run(stage: Stage) -> None:
    transitions._move(Stage.objects.filter(pk=stage.pk), states.STAGE_MOVES, states.RUNNING)


@pytest.fixture
def agent(make_agent: Callable[..., Agent]) -> Agent:
    return make_agent()


def test_oldest_first_then_priority(agent: Agent, make_repo: Callable[..., Repo]) -> None:
    repo = make_repo()
    first, urgent = pend(repo), pend(repo, priority=1)
    assert next_stage(agent) == urgent.pk
    run(urgent)
    assert next_stage(agent) == first.pk


def test_an_agent_for_one_stage_gets_no_other(agent: Agent, make_repo: Callable[..., Repo]) -> None:
    repo = make_repo()
    _, mine = pend(repo), pend(repo)
    assert next_stage(agent, mine.pk) == mine.pk
    run(mine)
    assert next_stage(agent, mine.pk) is None


def test_repos_share_fairly(agent: Agent, make_repo: Callable[..., Repo]) -> None:
    busy, quiet = make_repo(name="busy"), make_repo(name="quiet")
    run(pend(busy))
    older, newer = pend(busy), pend(quiet)
    assert next_stage(agent) == newer.pk
    run(newer)
    assert next_stage(agent) == older.pk


@pytest.mark.parametrize(
    ("asks", "is_"),
    [
        ({}, {}),
        ({"variant": "v8"}, {"variant": "v8"}),
        ({"kernel": "6.1"}, {"kernel": "6.1"}),
        ({"arch": "arm64"}, {"arch": "arm64"}),
        ({}, {"variant": "v8", "kernel": "6.1"}),
        ({"labels": {"gpu": "yes"}}, {"labels": {"gpu": "yes"}}),
        ({"type": "docker"}, {}),
    ],
)
def test_it_fits(
    make_agent: Callable[..., Agent],
    make_repo: Callable[..., Repo],
    asks: dict[str, Any],
    is_: dict[str, Any],
) -> None:
    stage = pend(make_repo(), **asks)
    agent = make_agent(**is_)
    assert next_stage(agent) == stage.pk
    assert why_waiting(stage) == "waits for a free agent: one"


@pytest.mark.parametrize(
    ("asks", "is_", "words"),
    [
        ({"type": "kubernetes"}, {}, "type kubernetes on linux/amd64"),
        ({"arch": "arm64"}, {}, "type exec on linux/arm64"),
        ({"variant": "v7"}, {"variant": "v8"}, "no agent"),
        ({"kernel": "6.1"}, {}, "no agent"),
        ({"labels": {"gpu": "yes"}}, {}, "with labels gpu=yes"),
        ({}, {"labels": {"gpu": "yes"}}, "no agent"),
        ({}, {"bounds": {"repos": ["other/*"]}}, "no agent"),
        ({}, {"bounds": {"types": ["docker"]}}, "no agent"),
    ],
)
def test_it_does_not_fit(
    make_agent: Callable[..., Agent],
    make_repo: Callable[..., Repo],
    asks: dict[str, Any],
    is_: dict[str, Any],
    words: str,
) -> None:
    stage = pend(make_repo(), **asks)
    assert next_stage(make_agent(**is_)) is None
    assert words in why_waiting(stage)


def test_a_repo_may_allow_further_labels(
    make_agent: Callable[..., Agent], make_repo: Callable[..., Repo]
) -> None:
    agent = make_agent(labels={"gpu": "yes", "zone": "a"})
    stage = pend(make_repo(subset_labels=True), labels={"gpu": "yes"})
    assert next_stage(agent) == stage.pk
    assert stage.queue in membership.queues(agent)
    other = pend(make_repo(name="other", subset_labels=True), labels={"zone": "b"})
    run(stage)
    assert next_stage(agent) is None
    assert other.queue not in membership.queues(agent)


def test_a_token_bounds_repos(
    make_agent: Callable[..., Agent], make_repo: Callable[..., Repo]
) -> None:
    agent = make_agent(bounds={"repos": ["octocat/h*"]})
    pend(make_repo(name="world"))
    assert next_stage(agent) is None
    allowed = pend(make_repo(name="hello"))
    assert next_stage(agent) == allowed.pk


def test_a_stage_limit_counts_same_named_stages(
    agent: Agent, make_repo: Callable[..., Repo]
) -> None:
    repo = make_repo()
    first, second = pend(repo, limit=1), pend(repo, limit=1)
    other = pend(repo, limit=1, name="other")
    assert next_stage(agent) == first.pk
    run(first)
    assert next_stage(agent) == other.pk
    run(other)
    assert next_stage(agent) is None
    assert "concurrency limit" in why_waiting(second)


def test_a_throttle_counts_the_repos_stages(agent: Agent, make_repo: Callable[..., Repo]) -> None:
    repo = make_repo()
    stages = [pend(repo, throttle=2, name=f"s{n}") for n in range(3)]
    for stage in stages[:2]:
        assert next_stage(agent) == stage.pk
        run(stage)
    assert next_stage(agent) is None
    assert "throttle" in why_waiting(stages[2])


def test_a_paused_queue_gives_nothing(agent: Agent, make_repo: Callable[..., Repo]) -> None:
    stage = pend(make_repo())
    ServerState.objects.create(key=PAUSED)
    assert next_stage(agent) is None
    assert why_waiting(stage) == "the queue is paused"


def test_it_says_what_a_stage_waits_for(
    agent: Agent, make_repo: Callable[..., Repo], make_agent: Callable[..., Agent]
) -> None:
    repo = make_repo()
    stages = [Stage(number=1, name="a"), Stage(number=2, name="b", depends_on=["a"])]
    build = Build(repo=repo, event="push")
    transitions.create_build(build, stages, Config(data=""))
    assert why_waiting(stages[1]) == "waits for a"
    blocked = Stage(number=1, name="a")
    transitions.create_build(
        Build(repo=repo, event="push"), [blocked], Config(data=""), blocked=True
    )
    assert why_waiting(blocked) == "waits for approval"
    stage = pend(repo)
    Agent.objects.update(disabled=True)
    assert why_waiting(stage) == "the agents for it are away, draining or disabled: one"
    run(stage)
    stage.refresh_from_db()
    assert why_waiting(stage) == ""
