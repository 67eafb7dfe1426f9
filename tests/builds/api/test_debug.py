"""Steps that wait for debugging, by the API."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from builds import triggers
from builds.models import Agent, Build, Hold, Lease, Perm, Repo, Stage, Step, User

PATH = "repos/octocat/hello/builds/1"


@pytest.fixture
def hold(repo: Repo, user: User) -> Hold:
    """A kept step of a build in debug."""
    triggers.create(repo, user=user, debug=True)
    now = timezone.now()
    stage = Stage.objects.get()
    step = Step.objects.create(stage=stage, number=1, name="test", started=now)
    agent = Agent.objects.create(name="one", joined=now, seen=now)
    lease = Lease.objects.create(
        id="l1", stage=stage, attempt=1, agent=agent, nonce="n", created=now, seen=now
    )
    until = now + timedelta(minutes=10)
    return Hold.objects.create(step=step, lease=lease, exit_code=4, created=now, expires=until)


def test_a_kept_step_is_listed_and_marked(api: Any, hold: Hold) -> None:
    until = int(hold.expires.timestamp())
    (found,) = api.get(f"{PATH}/debug")
    assert found == {
        "id": hold.pk,
        "stage": 1,
        "step": 1,
        "stage_name": "default",
        "name": "test",
        "exit_code": 4,
        "created": int(hold.created.timestamp()),
        "expires": until,
    }
    assert api.get(PATH)["stages"][0]["steps"][0]["debug_until"] == until


def test_it_is_let_go(api: Any, hold: Hold) -> None:
    assert api.call("DELETE", f"{PATH}/debug/1/1").status_code == 204
    assert Hold.objects.get().released
    assert api.get(f"{PATH}/debug") == []
    assert "debug_until" not in api.get(PATH)["stages"][0]["steps"][0]
    assert api.refused("DELETE", f"{PATH}/debug/1/1")[0] == 404


def test_others_do_not_let_it_go(
    api_of: Callable[[User], Any], guest: Any, hold: Hold, repo: Repo
) -> None:
    someone = User.objects.create_user("someone")
    assert guest.refused("DELETE", f"{PATH}/debug/1/1")[0] == 401
    Perm.objects.create(user=someone, repo=repo, write=True)
    Build.objects.update(source_repo="stranger/hello")
    assert api_of(someone).refused("DELETE", f"{PATH}/debug/1/1")[0] == 403
    assert not Hold.objects.get().released


def test_a_fork_is_restarted_in_debug_by_administrators_alone(
    api: Any, api_of: Callable[[User], Any], hold: Hold, repo: Repo
) -> None:
    someone = User.objects.create_user("someone")
    Perm.objects.create(user=someone, repo=repo, write=True)
    Build.objects.update(source_repo="stranger/hello")
    status, message = api_of(someone).refused("POST", f"{PATH}?debug=true")
    assert status == 400
    assert "only administrators of octocat/hello" in message
    assert api.json("POST", f"{PATH}?debug=true")["debug"] is True
