"""What an administrator says takes effect on an agent that is there, and outlives its restarts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from builds import claims, fleet, membership, triggers
from builds.membership import Refused
from builds.models import Agent, Audit, Repo, Stage, User
from pipeline.errors import UserError
from pipeline.routing import queue_name
from pipeline.wire import Claim, Join, Joined, Presence, Report


@pytest.fixture
def token(db: None) -> str:
    return membership.new_join_token("hosts")


@pytest.fixture
def joined(token: str) -> Joined:
    return membership.join(token, Join("one", "0.1.0"), "127.0.0.1")


@pytest.fixture
def agent(joined: Joined) -> Agent:
    agent = membership.agent_by_token(joined.token)
    assert agent is not None
    return agent


def again(token: str, joined: Joined, **more: Any) -> Joined:
    """The agent starts anew."""
    hello = Join("one", "0.1.0", previous=joined.id, previous_token=joined.token, **more)
    return membership.join(token, hello, "127.0.0.1")


def orders(agent: Agent) -> tuple[str, str]:
    told = membership.presence(agent, Presence())
    return told.action, told.reason


def test_a_drained_agent_takes_nothing_until_it_is_told_otherwise(
    token: str, joined: Joined, agent: Agent, make_repo: Callable[..., Repo], user: User
) -> None:
    triggers.create(make_repo(), user=user)
    fleet.tell(agent, "drain", user)
    assert orders(agent)[0] == "drain"
    agent = Agent.objects.get(pk=again(token, joined).id)
    assert agent.drain
    assert claims.claim(agent, Claim("nonce-0001")) is None
    fleet.tell(agent, "undrain", user)
    agent = Agent.objects.select_related("join_token").get()
    assert claims.claim(agent, Claim("nonce-0002")) is not None
    assert list(Audit.objects.order_by("id").values_list("action", "subject")) == [
        ("agent.drain", "one"),
        ("agent.undrain", "one"),
    ]


def test_a_disabled_agent_is_sent_away_and_stays_away(
    token: str, joined: Joined, agent: Agent, user: User
) -> None:
    fleet.tell(agent, "disable", user)
    assert orders(agent) == ("shutdown", "an administrator disabled this agent")
    for attempt in (lambda: again(token, joined), lambda: membership.join(token, HELLO, "")):
        with pytest.raises(Refused, match="disabled the agent one") as refused:
            attempt()
        assert refused.value.code == "agent:disabled"
    fleet.tell(agent, "enable", user)
    assert again(token, joined).id == agent.pk


HELLO = Join("one", "0.1.0")


def test_labels_of_an_administrator_outlive_a_restart(
    token: str, joined: Joined, agent: Agent, user: User
) -> None:
    fleet.relabel(agent, {"zone": "b"}, user)
    labelled = queue_name("exec", "linux", "amd64", {"zone": "b"})
    assert membership.presence(agent, Presence()).queues == (labelled,)
    back = again(token, joined, labels={"zone": "a"})
    assert back.queues == (labelled,)
    fleet.relabel(agent, None, user)
    own = again(token, back, labels={"zone": "a"})
    assert own.queues == (queue_name("exec", "linux", "amd64", {"zone": "a"}),)


@pytest.mark.parametrize("labels", [{"zone": 1}, {"": "x"}, ["a"]])
def test_labels_that_are_none_are_refused(agent: Agent, user: User, labels: Any) -> None:
    with pytest.raises(UserError, match="names and texts"):
        fleet.relabel(agent, labels, user)


@pytest.fixture
def work(agent: Agent, make_repo: Callable[..., Repo], user: User) -> None:
    """One stage that has begun, and one that has not."""
    repo = make_repo()
    for number in (1, 2):
        triggers.create(repo, user=user)
        claimed = claims.claim(agent, Claim(f"nonce-000{number}"))
        assert claimed is not None
    claims.report(agent, claimed.lease, Report("running", begun=True))


def test_a_revoked_agent_is_shut_out(
    token: str, joined: Joined, agent: Agent, work: None, user: User
) -> None:
    fleet.revoke(agent, user)
    assert membership.agent_by_token(joined.token) is None
    with pytest.raises(Refused, match="disabled"):
        again(token, joined)
    first, second = Stage.objects.order_by("id")
    assert first.status == "pending"
    assert (second.status, second.error) == (
        "error",
        "agent one left before it finished: an administrator revoked its token",
    )


def test_a_deleted_agent_is_forgotten(
    token: str, joined: Joined, agent: Agent, work: None, user: User
) -> None:
    fleet.delete(agent, user)
    assert not Agent.objects.exists()
    assert [stage.status for stage in Stage.objects.order_by("id")] == ["pending", "error"]
    assert again(token, joined).token != joined.token


def test_the_server_may_let_all_agents_have_more_labels(
    settings: Any, agent: Agent, make_repo: Callable[..., Repo], user: User, token: str
) -> None:
    labelled = membership.join(token, Join("two", "0.1.0", labels={"zone": "a"}), "127.0.0.1")
    more = membership.agent_by_token(labelled.token)
    assert more is not None
    triggers.create(make_repo(), user=user)
    assert claims.claim(more, Claim("nonce-0001")) is None
    settings.SUBSET_LABELS = True
    assert queue_name("exec", "linux", "amd64", {}) in membership.queues(more)
    assert claims.claim(more, Claim("nonce-0002")) is not None
