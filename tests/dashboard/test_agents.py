from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from builds.models import Agent, Audit, Lease
from tests.dashboard import seed

pytestmark = pytest.mark.django_db


def agent(name: str = "box", **more: Any) -> Agent:
    now = timezone.now()
    values = {"token_prefix": "x", "token_sha256": "x", "joined": now, "seen": now, **more}
    return Agent.objects.create(name=name, **values)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({}, "idle"),
        ({"disabled": True}, "disabled"),
        ({"drain": True}, "draining"),
        ({"seen": timezone.now() - timedelta(minutes=5)}, "lost"),
        ({"left": timezone.now(), "reason": "stopped"}, "offline"),
    ],
)
def test_it_says_in_a_word_what_an_agent_does(
    as_reader: Client, more: dict[str, Any], word: str
) -> None:
    agent(**more)

    (row,) = as_reader.get("/agents").context["rows"]

    assert row.word == word


def test_agents_long_gone_are_not_shown(as_reader: Client) -> None:
    agent(left=timezone.now() - timedelta(days=2))

    assert "No agents" in as_reader.get("/agents").content.decode()


def test_it_shows_leases_but_no_names_of_repos_one_may_not_see(as_reader: Client, web: Any) -> None:
    box = agent(labels={"disk": "ssd"})
    secret = seed.repo("hidden/plans")
    for number, repo in enumerate((web, secret)):
        stage = seed.stage(seed.build(repo, 7, "running"), 1, "linux", "running")
        Lease.objects.create(
            id=f"lease-{number}", stage=stage, attempt=1, agent=box, nonce=f"n{number}",
            created=timezone.now(), seen=timezone.now(),
        )  # fmt: skip

    page = as_reader.get("/agents").content.decode()

    assert "octocat/web #7" in page
    assert "hidden/plans" not in page
    assert "another repository" in page
    assert "2 of 2" in page
    assert "disk=ssd" in page


@pytest.mark.parametrize(
    ("action", "field", "value"),
    [("drain", "drain", True), ("undrain", "drain", False), ("disable", "disabled", True),
     ("enable", "disabled", False)],
)  # fmt: skip
def test_an_admin_tells_agents_what_to_do(
    as_admin: Client, action: str, field: str, value: bool
) -> None:
    box = agent(**{field: not value})

    response = as_admin.post("/agents", {"agent": box.pk, "action": action}, follow=True)

    box.refresh_from_db()
    assert getattr(box, field) is value
    assert "box" in response.content.decode()
    assert Audit.objects.get().action == f"agent.{action}"


def test_an_unknown_action_changes_nothing(as_admin: Client) -> None:
    box = agent()

    page = as_admin.post("/agents", {"agent": box.pk, "action": "explode"}, follow=True)

    assert "No such action" in page.content.decode()


def test_others_may_look_but_not_touch(as_reader: Client, client: Client) -> None:
    box = agent()

    assert "Disable" not in as_reader.get("/agents").content.decode()
    assert as_reader.post("/agents", {"agent": box.pk, "action": "drain"}).status_code == 403
    assert client.get("/agents").headers["Location"] == "/login?next=/agents"
    box.refresh_from_db()
    assert not box.drain
