from __future__ import annotations

from collections.abc import Callable
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
    liar = Join("one", "0.2.0", previous=first.id, previous_token="cia_guess")
    assert membership.join(token, liar, "127.0.0.1").id != first.id


def test_a_name_in_use_gets_a_number_and_one_that_left_is_free(db: None) -> None:
    token = membership.new_join_token("hosts")
    for _ in range(2):
        membership.join(token, HELLO, "127.0.0.1")
    assert set(Agent.objects.values_list("name", flat=True)) == {"one", "one-2"}
    membership.leave(Agent.objects.get(name="one"), "done")
    membership.join(token, HELLO, "127.0.0.1")
    assert Agent.objects.count() == 2
    assert Agent.objects.get(name="one").left is None


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


def test_a_revoked_agent_is_unknown(make_agent: Callable[..., Agent]) -> None:
    token = membership.new_join_token("hosts")
    joined = membership.join(token, HELLO, "127.0.0.1")
    agent = membership.agent_by_token(joined.token)
    assert agent is not None
    membership.revoke(agent)
    assert membership.agent_by_token(joined.token) is None


def test_agents_of_a_deleted_token_get_no_work(make_agent: Callable[..., Agent]) -> None:
    agent = make_agent()
    assert membership.may_claim(agent)
    JoinToken.objects.all().delete()
    agent = Agent.objects.select_related("join_token").get()
    assert not membership.may_claim(agent)
