from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from builds import claims, membership, triggers
from builds.membership import Refused
from builds.models import Agent, JoinToken, Lease, Repo, Stage, User
from pipeline.routing import queue_name
from pipeline.wire import Claim, Join, Presence, Report

HELLO = Join("one", "0.1.0")


def test_it_joins_and_is_found_by_its_own_token(db: None, settings: Any) -> None:
    settings.AGENT_BROKER_URL = "redis://agent@broker"
    joined = membership.join(membership.new_join_token("hosts"), HELLO, "127.0.0.1")
    agent = membership.agent_by_token(joined.token)
    assert agent is not None and agent.pk == joined.id
    assert (joined.broker_url, joined.queues) == (
        "redis://agent@broker",
        (queue_name("exec", "linux", "amd64", {}),),
    )
    assert joined.token not in str(Agent.objects.values().get())
    assert membership.agent_by_token(joined.token + "x") is None
    assert membership.agent_by_token("") is None


@pytest.mark.parametrize(
    ("bounds", "code"),
    [
        ({"disabled": True}, "agent:token-ended"),
        ({"expires": timezone.now() - timedelta(hours=1)}, "agent:token-ended"),
        ({"labels": {"zone": "a"}}, "agent:labels"),
        ({"platforms": ["linux/arm64"]}, "agent:platform"),
        ({"types": ["docker"]}, "agent:types"),
    ],
)
def test_a_join_token_bounds_who_joins(db: None, bounds: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refused:
        membership.join(membership.new_join_token("hosts", **bounds), HELLO, "127.0.0.1")
    assert refused.value.code == code


def test_an_agent_that_is_too_old_is_told(db: None) -> None:
    old, text = replace(HELLO, v=0), membership.new_join_token("hosts")
    words = "speaks version 0 of the agent protocol, the server 1: upgrade the agent"
    with pytest.raises(Refused, match=words):
        membership.join(text, old, "127.0.0.1")
    with pytest.raises(Refused, match=words):
        membership.would_join(text, old)


def test_an_unknown_token_is_refused_in_one_sentence(db: None) -> None:
    with pytest.raises(Refused, match="does not know the join token"):
        membership.join("cij_wrong", HELLO, "127.0.0.1")


def test_the_token_of_the_settings_joins(db: None, settings: Any) -> None:
    settings.JOIN_TOKEN = "bea26a2221fd8090ea38720fc445eca6"
    assert membership.join(settings.JOIN_TOKEN, HELLO, "127.0.0.1").id
    settings.JOIN_TOKEN = "another, because it was rotated"
    assert membership.join(settings.JOIN_TOKEN, HELLO, "127.0.0.1").id
    assert JoinToken.objects.count() == 1
    with pytest.raises(Refused):
        membership.join("bea26a2221fd8090ea38720fc445eca6", HELLO, "127.0.0.1")


def test_an_agent_that_proves_who_it_was_keeps_its_row(db: None) -> None:
    token = membership.new_join_token("hosts")
    first = membership.join(token, HELLO, "127.0.0.1")
    again = Join("one", "0.2.0", previous=first.id, previous_token=first.token)
    second = membership.join(token, again, "127.0.0.1")
    assert second.id == first.id and second.token != first.token
    assert membership.agent_by_token(first.token) is None
    assert Agent.objects.get().version == "0.2.0"
    sync(second.token)
    liar = Join("one", "0.2.0", previous=first.id, previous_token="cia_guess")
    with pytest.raises(Refused, match="at work"):
        membership.join(token, liar, "127.0.0.1")


def sync(token: str) -> Agent:
    """Let an agent say that it is there."""
    agent = membership.agent_by_token(token)
    assert agent is not None
    membership.presence(agent, Presence())
    agent.refresh_from_db()
    return agent


def fall_silent(agent: Agent) -> None:
    Agent.objects.filter(pk=agent.pk).update(
        joined=timezone.now() - timedelta(hours=1), seen=timezone.now() - timedelta(minutes=2)
    )


def test_a_name_belongs_to_the_agent_that_is_there(db: None) -> None:
    token = membership.new_join_token("hosts")
    first = sync(membership.join(token, HELLO, "127.0.0.1").token)
    with pytest.raises(Refused, match="there is an agent one at work") as refused:
        membership.join(token, HELLO, "127.0.0.1")
    assert refused.value.code == "agent:name"
    with pytest.raises(Refused, match="at work"):
        membership.would_join(token, HELLO)
    membership.leave(first, "done")
    assert membership.join(token, HELLO, "127.0.0.1").id == first.pk
    assert Agent.objects.get().left is None


def test_a_dead_agent_is_replaced(db: None) -> None:
    token = membership.new_join_token("hosts")
    first = sync(membership.join(token, HELLO, "127.0.0.1").token)
    fall_silent(first)
    second = membership.join(token, HELLO, "127.0.0.1")
    assert second.id == first.pk
    found = membership.agent_by_token(second.token)
    assert found is not None and found.seen > first.seen


def test_the_name_of_a_dead_agent_waits_for_its_stages(
    make_repo: Callable[..., Repo], user: User
) -> None:
    token = membership.new_join_token("hosts")
    first = sync(membership.join(token, HELLO, "127.0.0.1").token)
    triggers.create(make_repo(), user=user)
    claimed = claims.claim(first, Claim("nonce-0001"))
    assert claimed is not None
    claims.report(first, claimed.lease, Report("running", begun=True))
    fall_silent(first)
    with pytest.raises(Refused, match="left unfinished stages"):
        membership.join(token, HELLO, "127.0.0.1")


def test_an_agent_that_never_got_its_answer_asks_again(db: None) -> None:
    token = membership.new_join_token("hosts")
    lost = membership.join(token, HELLO, "127.0.0.1")
    again = membership.join(token, HELLO, "127.0.0.1")
    assert again.id == lost.id
    known = Join("one", "0.1.0", previous=again.id, previous_token=again.token)
    membership.join(token, known, "127.0.0.1")  # this answer is lost too
    assert membership.join(token, known, "127.0.0.1").id == lost.id


def test_an_agent_may_take_another_name_that_is_free(db: None) -> None:
    token = membership.new_join_token("hosts")
    first = membership.join(token, HELLO, "127.0.0.1")
    other = membership.join(token, Join("other", "0.1.0"), "127.0.0.1")
    renamed = Join("two", "0.1.0", previous=first.id, previous_token=first.token)
    second = membership.join(token, renamed, "127.0.0.1")
    assert Agent.objects.get(pk=second.id).name == "two"
    clash = Join("other", "0.1.0", previous=second.id, previous_token=second.token)
    sync(other.token)
    with pytest.raises(Refused, match="at work"):
        membership.join(token, clash, "127.0.0.1")


@pytest.mark.parametrize("name", ["", "with space", "x" * 81, "a\nb", "ä"])
def test_a_name_that_is_none_is_refused(db: None, name: str) -> None:
    with pytest.raises(Refused) as refused:
        membership.join(membership.new_join_token("hosts"), Join(name, "0.1.0"), "127.0.0.1")
    assert refused.value.code == "agent:bad-name"


def test_agents_of_another_join_token_keep_their_names(db: None) -> None:
    first = membership.join(membership.new_join_token("hosts"), HELLO, "127.0.0.1")
    fall_silent(Agent.objects.get(pk=first.id))
    with pytest.raises(Refused, match="another join token"):
        membership.join(membership.new_join_token("others"), HELLO, "127.0.0.1")


def test_presence_gives_orders(make_agent: Callable[..., Agent]) -> None:
    agent = make_agent()
    sign = Presence(busy=1, state="busy", leases=("gone",), load=0.5, version="0.1.1")
    orders = membership.presence(agent, sign)
    assert (orders.action, orders.cancelled) == ("continue", ("gone",))
    agent.refresh_from_db()
    assert (agent.busy, agent.state, agent.version) == (1, "busy", "0.1.1")
    Agent.objects.update(drain=True)
    assert membership.presence(agent, Presence()).action == "drain"


def test_leaving_queues_again_what_had_not_begun(
    make_repo: Callable[..., Repo], make_agent: Callable[..., Agent], user: User
) -> None:
    agent, repo = make_agent(), make_repo()
    for number in (1, 2):
        triggers.create(repo, user=user)
        claimed = claims.claim(agent, Claim(f"nonce-000{number}"))
        assert claimed is not None
    claims.report(agent, claimed.lease, Report("running", begun=True))
    membership.leave(agent, "the host goes down")
    first, second = Stage.objects.order_by("id")
    assert (first.status, first.agent) == ("pending", None)
    assert second.status == "error"
    assert "agent one left before it finished: the host goes down" in second.error
    assert set(Lease.objects.values_list("state", flat=True)) == {"closed"}


def test_agents_of_a_deleted_token_get_no_work(make_agent: Callable[..., Agent]) -> None:
    agent = make_agent()
    assert membership.may_claim(agent)
    JoinToken.objects.all().delete()
    agent = Agent.objects.select_related("join_token").get()
    assert not membership.may_claim(agent)
