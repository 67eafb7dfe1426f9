from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from builds import claims, logs, secrets
from builds.encryption import decrypt
from builds.models import Agent, Perm, Repo, Step, StepLog, User
from pipeline import signature
from pipeline.wire import Claim
from tests.builds.api.conftest import Api
from tests.builds.conftest import TRIVIAL

pytestmark = pytest.mark.django_db


def test_a_repository_is_registered_by_its_address_once(
    root: Api, make_git: Callable[..., Path]
) -> None:
    path = make_git({".drone.yml": TRIVIAL}, "My Project")

    made = root.json("POST", "repos", {"git_http_url": f"file://{path}".replace(" ", "%20")})
    again = root.json("POST", "repos", {"git_http_url": str(path).replace(" ", "%20")})

    assert made["id"] == again["id"]


def test_registered_repos_can_be_built(root: Api, make_git: Callable[..., Path]) -> None:
    path = make_git({".drone.yml": TRIVIAL}, "project")

    made = root.json("POST", "repos", {"git_http_url": str(path)})

    assert (made["slug"], made["default_branch"], made["visibility"]) == (
        "local/project",
        "main",
        "private",
    )
    assert made["permissions"] == {"read": True, "write": True, "admin": True}
    assert root.json("POST", "repos/local/project/builds")["status"] == "pending"


def test_a_second_project_of_the_same_name_gets_a_number(
    root: Api, make_git: Callable[..., Path]
) -> None:
    slugs = []
    for folder in ("one/project", "two/project"):
        path = make_git({".drone.yml": TRIVIAL}, folder)
        slugs.append(root.json("POST", "repos", {"git_http_url": f"file://{path}"})["slug"])

    assert slugs == ["local/project", "local/project-2"]
    body = {"git_http_url": "/elsewhere", "slug": "local/project", "default_branch": "main"}
    assert root.refused("POST", "repos", body)[0] == 409


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"git_http_url": ""},
        {"git_http_url": "--upload-pack=evil"},
        {"git_http_url": "ext::sh -c evil"},
        {"git_http_url": "https://me:password@example.com/a/b"},
        {"git_http_url": "https://example.com/a/b", "slug": "api/b"},
        {"git_http_url": "https://example.com/a/b", "slug": "three/part/name"},
        {"git_http_url": "https://example.com/a/b", "visibility": "odd"},
        {"git_http_url": "/nowhere/at/all"},
    ],
)
def test_bad_registrations_are_400_and_say_why(root: Api, body: dict[str, str]) -> None:
    status, message = root.refused("POST", "repos", body)

    assert status == 400
    assert message


def test_registering_and_the_list_of_all_are_for_administrators(
    root: Api, api: Api, guest: Api, repo: Repo
) -> None:
    for method in ("GET", "POST"):
        assert api.refused(method, "repos")[0] == 403
        assert guest.refused(method, "repos")[0] == 401
    assert [row["slug"] for row in root.get("repos?page=1&per_page=1")] == [repo.slug]
    assert root.get("repos?page=2") == []


@pytest.mark.parametrize(
    ("visibility", "guest_status", "stranger_status"),
    [("public", 200, 200), ("internal", 401, 200), ("private", 401, 404)],
)
def test_visibility(
    api_of: Callable[[User], Api],
    repo: Repo,
    guest: Api,
    visibility: str,
    guest_status: int,
    stranger_status: int,
) -> None:
    Repo.objects.update(visibility=visibility)
    stranger = api_of(User.objects.create_user("stranger"))
    path = f"repos/{repo.slug}"

    assert guest.call("GET", path).status_code == guest_status
    assert stranger.call("GET", path).status_code == stranger_status
    assert stranger.call("GET", path + "/").status_code == stranger_status
    assert guest.call("GET", "repos/no/such").status_code == 401
    assert stranger.call("GET", "repos/no/such").status_code == 404


def test_rights_that_are_too_low_are_404(api_of: Callable[[User], Api], repo: Repo) -> None:
    reader = User.objects.create_user("reader")
    Perm.objects.create(user=reader, repo=repo, read=True)
    api = api_of(reader)

    assert api.get(f"repos/{repo.slug}")["permissions"] == {
        "read": True,
        "write": False,
        "admin": False,
    }
    assert api.refused("POST", f"repos/{repo.slug}/builds") == (404, "sql: no rows in result set")
    assert api.refused("PATCH", f"repos/{repo.slug}", {"protected": True})[0] == 404


def test_settings_are_changed_and_null_keeps(api: Api, repo: Repo) -> None:
    changes = {
        "visibility": "public",
        "config_path": "ci.yml",
        "protected": True,
        "ignore_forks": None,
        "trusted": True,
        "timeout": 5,
        "counter": 99,
        "unknown": 1,
    }

    changed = api.json("PATCH", f"repos/{repo.slug}", changes)

    assert (changed["visibility"], changed["private"], changed["config_path"]) == (
        "public",
        False,
        "ci.yml",
    )
    assert (changed["protected"], changed["ignore_forks"]) == (True, False)
    assert (changed["trusted"], changed["timeout"], changed["counter"]) == (False, 60, 0)
    assert changed["version"] == 2


def test_administrators_change_the_rest(root: Api, repo: Repo) -> None:
    changes = {"trusted": True, "timeout": 5, "throttle": 2, "counter": 99}

    changed = root.json("PATCH", f"repos/{repo.slug}", changes)

    assert {key: changed[key] for key in changes} == changes
    assert root.json("POST", f"repos/{repo.slug}/builds")["number"] == 100


@pytest.mark.parametrize(
    "changes", [{"visibility": "odd"}, {"timeout": 0}, {"timeout": "x"}, {"protected": "maybe"}]
)
def test_bad_settings_are_400(root: Api, repo: Repo, changes: dict[str, object]) -> None:
    assert root.refused("PATCH", f"repos/{repo.slug}", changes)[0] == 400


def test_a_repo_is_disabled_and_enabled(api: Api, root: Api, root_user: User, repo: Repo) -> None:
    assert api.json("DELETE", f"repos/{repo.slug}")["active"] is False
    assert api.refused("POST", f"repos/{repo.slug}/builds")[0] == 400

    enabled = root.json("POST", f"repos/{repo.slug}")

    assert (enabled["active"], enabled["user_id"]) == (True, root_user.pk)


def test_a_removed_repo_leaves_nothing(
    api: Api, repo: Repo, make_agent: Callable[..., Agent]
) -> None:
    api.json("POST", f"repos/{repo.slug}/builds")
    claims.claim(make_agent(), Claim("nonce-0001"))
    logs.finish(Step.objects.get().pk, 0)

    api.json("DELETE", f"repos/{repo.slug}?remove=true")

    assert not Repo.objects.exists()
    assert not Step.objects.exists()
    assert not StepLog.objects.exists()


def test_a_repo_changes_hands(root: Api, root_user: User, repo: Repo) -> None:
    assert root.json("POST", f"repos/{repo.slug}/chown")["user_id"] == root_user.pk


def test_repair_reads_the_default_branch(api: Api, repo: Repo) -> None:
    Repo.objects.update(default_branch="gone")

    assert api.json("POST", f"repos/{repo.slug}/repair")["default_branch"] == "main"


def test_collaborators(api: Api, repo: Repo) -> None:
    Perm.objects.create(user=User.objects.create_user("mate"), repo=repo, write=True)
    path = f"repos/{repo.slug}/collaborators"

    assert [row["login"] for row in api.get(path)] == ["mate"]
    assert api.get(f"{path}/mate") == {"read": True, "write": True, "admin": False}
    assert api.call("DELETE", f"{path}/mate").status_code == 204
    assert api.refused("GET", f"{path}/mate")[0] == 404


def test_files_are_signed_and_text_is_encrypted_with_the_repos_key(api: Api, repo: Repo) -> None:
    signed = api.json("POST", f"repos/{repo.slug}/sign", {"data": TRIVIAL})["data"]
    sealed = api.json("POST", f"repos/{repo.slug}/encrypt", {"data": " secret\n"})["data"]

    repo.refresh_from_db()
    key = secrets.repo_secret(repo)
    assert signed == signature.sign(TRIVIAL, key)
    assert decrypt(key, sealed) == " secret\n"
    assert api.call("POST", f"repos/{repo.slug}/verify", {}).status_code == 404
