"""`/api/agents`: the agents for administrators and their scripts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from builds import membership
from builds.models import Agent, Audit
from pipeline.wire import Presence
from tests.builds.api.conftest import Api

pytestmark = pytest.mark.django_db


@pytest.fixture
def agent(make_agent: Callable[..., Agent]) -> Agent:
    agent = make_agent(labels={"zone": "a"})
    membership.presence(agent, Presence(busy=1, state="busy", load=0.5, disk_free_bytes=7))
    return agent


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "agents"),
        ("GET", "agents/1"),
        ("PATCH", "agents/1"),
        ("DELETE", "agents/1"),
        ("POST", "agents/1/revoke"),
    ],
)
def test_agents_are_for_administrators(api: Api, guest: Api, method: str, path: str) -> None:
    assert api.refused(method, path)[0] == 403
    assert guest.refused(method, path)[0] == 401


def test_it_lists_agents(root: Api, agent: Agent) -> None:
    (found,) = root.get("agents")

    assert found == root.get(f"agents/{agent.pk}")
    assert (found["name"], found["status"], found["busy"]) == ("one", "busy", 1)
    assert (found["labels"], found["types"]) == ({"zone": "a"}, ["exec", "docker"])
    assert (found["load"], found["disk_free_bytes"], found["left"]) == (0.5, 7, 0)
    assert (found["version"], found["join_token"]) == ("0.1.0", "token of one")
    assert not any("sha256" in key or "prefix" in key for key in found)


def test_it_tells_agents(root: Api, agent: Agent) -> None:
    path = f"agents/{agent.pk}"

    assert root.json("PATCH", path, {"drain": True})["status"] == "draining"
    assert membership.orders(agent, ()).action == "drain"
    assert root.json("PATCH", path, {"disabled": True, "drain": False})["status"] == "disabled"
    assert membership.orders(agent, ()).action == "shutdown"
    assert root.json("PATCH", path, {"disabled": False})["status"] == "busy"
    assert root.json("PATCH", path, {"labels": {"zone": "b"}})["labels"] == {"zone": "b"}
    assert root.json("PATCH", path, {"labels": None}).get("relabelled") is None
    assert Audit.objects.filter(subject="one").count() == 6


def test_it_tells_several_things_at_once(root: Api, agent: Agent) -> None:
    change = {"drain": True, "disabled": False, "labels": {"zone": "c"}}
    told = root.json("PATCH", f"agents/{agent.pk}", change)
    assert (told["drain"], told["disabled"], told["labels"]) == (True, False, {"zone": "c"})


def test_what_makes_no_sense_is_refused(root: Api, agent: Agent) -> None:
    assert root.refused("PATCH", f"agents/{agent.pk}", {"labels": ["a"]})[0] == 400
    assert root.refused("PATCH", f"agents/{agent.pk}", {"drain": "perhaps"})[0] == 400
    assert root.refused("GET", "agents/99999999999")[0] == 404
    assert not Audit.objects.exists()


def test_one_that_is_there_is_deleted_only_by_force(root: Api, agent: Agent) -> None:
    path = f"agents/{agent.pk}"

    assert root.refused("DELETE", path) == (
        409,
        "one is busy: disable it first, or use force=true",
    )
    assert root.call("DELETE", f"{path}?force=true").status_code == 204
    assert root.refused("GET", path)[0] == 404


def test_one_that_is_gone_is_deleted(root: Api, agent: Agent) -> None:
    Agent.objects.update(seen=timezone.now() - timedelta(hours=1))
    assert root.get(f"agents/{agent.pk}")["status"] == "lost"

    assert root.call("DELETE", f"agents/{agent.pk}").status_code == 204


def test_a_token_is_revoked(root: Api, agent: Agent) -> None:
    assert root.json("POST", f"agents/{agent.pk}/revoke")["disabled"] is True
    assert Agent.objects.get().token_sha256 == ""
