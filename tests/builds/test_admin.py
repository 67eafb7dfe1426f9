from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from builds import claims, logs, triggers
from builds.models import Agent, Audit, Build, JoinToken, Repo, Secret, Step, StepLog, User
from builds.secrets import matches, unseal
from pipeline.wire import Claim


@pytest.fixture
def root(db: None, client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


def act(
    client: Client, model: type[Any], action: str, *rows: Any, more: dict[str, str] | None = None
) -> str:
    name = model._meta.model_name
    answer = client.post(
        reverse(f"admin:builds_{name}_changelist"),
        {"action": action, "_selected_action": [row.pk for row in rows], **(more or {})},
        follow=True,
    )
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.parametrize(
    "model", [m for m in admin.site._registry if m._meta.app_label == "builds"]
)
def test_every_list_shows(root: Client, model: type[Any]) -> None:
    answer = root.get(reverse(f"admin:builds_{model._meta.model_name}_changelist"), {"q": "x"})
    assert answer.status_code == 200


def test_pages_of_a_build_show(root: Client, make_repo: Callable[..., Repo], user: User) -> None:
    build = triggers.create(make_repo(), user=user)
    assert build is not None
    for row in (build.repo, build, build.stages.get()):
        answer = root.get(reverse(f"admin:builds_{row._meta.model_name}_change", args=[row.pk]))
        assert answer.status_code == 200
    assert "no agent has joined" in answer.content.decode()


def test_it_cancels_and_restarts_builds(
    root: Client, make_repo: Callable[..., Repo], user: User
) -> None:
    build = triggers.create(make_repo(), user=user)
    assert "1 cancelled" in act(root, Build, "cancel", build)
    act(root, Build, "restart", build)
    assert list(Build.objects.order_by("number").values_list("status", "parent", "sender")) == [
        ("killed", 0, "octocat"),
        ("pending", 1, "root"),
    ]


def test_what_has_happened_is_not_edited_here(
    root: Client, make_repo: Callable[..., Repo], user: User
) -> None:
    build = triggers.create(make_repo(), user=user)
    assert build is not None
    for row in (build, build.stages.get()):
        name = f"admin:builds_{row._meta.model_name}"
        assert (
            root.post(reverse(f"{name}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
        )
        assert (
            root.post(reverse(f"{name}_change", args=[row.pk]), {"status": "x"}).status_code == 403
        )
    assert root.get(reverse("admin:builds_repo_add")).status_code == 403


@pytest.mark.parametrize("way", ["page", "list"])
def test_a_repository_goes_with_builds_and_logs(
    root: Client,
    make_repo: Callable[..., Repo],
    make_agent: Callable[..., Agent],
    user: User,
    way: str,
) -> None:
    build = triggers.create(make_repo(), user=user)
    assert build is not None
    claims.claim(make_agent(), Claim("nonce-0001"))
    logs.finish(Step.objects.get().pk, 0)
    page = reverse("admin:builds_repo_delete", args=[build.repo_id])
    assert b"Builds: 1" in root.get(page).content
    if way == "page":
        root.post(page, {"post": "yes"})
    else:
        act(root, Repo, "delete_selected", build.repo, more={"post": "yes"})
    assert not Repo.objects.exists() and not StepLog.objects.exists()


def test_it_switches_agents(root: Client, make_agent: Callable[..., Agent]) -> None:
    agent = make_agent()
    act(root, Agent, "disable", agent)
    act(root, Agent, "drain_agents", agent)
    agent.refresh_from_db()
    assert agent.disabled and agent.drain
    act(root, Agent, "enable", agent)
    act(root, Agent, "undrain", agent)
    agent.refresh_from_db()
    assert not agent.disabled and not agent.drain
    act(root, Agent, "revoke_tokens", agent)
    agent.refresh_from_db()
    assert agent.disabled and agent.token_sha256 == ""
    assert set(Audit.objects.values_list("action", "subject")) == {
        ("agent.disable", "one"), ("agent.drain", "one"), ("agent.enable", "one"),
        ("agent.undrain", "one"),
        ("agent.revoke", "one"),
    }  # fmt: skip


def test_it_gives_agents_other_labels(root: Client, make_agent: Callable[..., Agent]) -> None:
    agent = make_agent(labels={"zone": "a"})
    change = reverse("admin:builds_agent_change", args=[agent.pk])
    root.post(change, {"relabelled": '{"zone": "b"}'})
    agent.refresh_from_db()
    assert agent.labels == agent.relabelled == {"zone": "b"}
    page = root.post(change, {"relabelled": '["zone"]'}, follow=True)
    assert b"names and texts" in page.content
    agent.refresh_from_db()
    assert agent.labels == {"zone": "b"}


def test_a_deleted_agent_is_forgotten(root: Client, make_agent: Callable[..., Agent]) -> None:
    agent = make_agent()
    act(root, Agent, "delete_selected", agent, more={"post": "yes"})
    other = make_agent("two")
    root.post(reverse("admin:builds_agent_delete", args=[other.pk]), {"post": "yes"})
    assert not Agent.objects.exists()
    assert Audit.objects.filter(action="agent.delete").count() == 2


def test_a_new_join_token_is_shown_once(root: Client) -> None:
    bounds = {"labels": "{}", "platforms": "[]", "types": "[]", "repos": "[]"}
    page = root.post(
        reverse("admin:builds_jointoken_add"), {"name": "hosts", **bounds}, follow=True
    ).content.decode()
    token = page.partition("can connect with token ")[2].split("<")[0].strip()
    assert matches(JoinToken.objects.get().token_sha256, token)
    act(root, JoinToken, "revoke", JoinToken.objects.get())
    assert JoinToken.objects.get().disabled


def test_a_secret_is_sealed_and_never_shown(root: Client, make_repo: Callable[..., Repo]) -> None:
    repo = make_repo()
    add = reverse("admin:builds_secret_add")
    assert b"needs a value" in root.post(add, {"repo": repo.pk, "name": "password"}).content
    root.post(add, {"repo": repo.pk, "name": "password", "value": "hunter2"})
    secret = Secret.objects.get()
    assert unseal(secret.data_sealed) == "hunter2"
    change = reverse("admin:builds_secret_change", args=[secret.pk])
    assert b"hunter2" not in root.get(change).content
    root.post(change, {"repo": repo.pk, "name": "password", "pull_request": "on"})
    secret.refresh_from_db()
    assert secret.pull_request and unseal(secret.data_sealed) == "hunter2"
