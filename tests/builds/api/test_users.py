from __future__ import annotations

import pytest

from builds import secrets
from builds.models import Perm, Repo, User
from tests.builds.api.conftest import Api

pytestmark = pytest.mark.django_db


def test_one_sees_oneself(api: Api, user: User) -> None:
    assert api.get("user")["login"] == user.username


@pytest.mark.parametrize("path", ["user", "user/", "user/repos", "user/builds"])
def test_guests_are_nobody(guest: Api, path: str) -> None:
    assert guest.refused("GET", path) == (401, "Unauthorized")


def test_a_bare_token_and_a_parameter_work(api: Api, user: User) -> None:
    token = secrets.user_token(user)
    guest = Api()

    for answer in (
        guest.call("GET", "user", headers={"authorization": token}),
        guest.call("GET", f"user?access_token={token}"),
        guest.call(
            "POST",
            "user/token",
            f"access_token={token}",
            content_type="application/x-www-form-urlencoded",
        ),
    ):
        assert answer.status_code == 200


def test_a_wrong_token_makes_a_guest_and_disables_the_cookie(user: User) -> None:
    api = Api("wrong")
    api.client.force_login(user)

    assert api.refused("GET", "user")[0] == 401


def test_the_session_of_the_pages_works_for_reading(user: User) -> None:
    api = Api()
    api.client.force_login(user)

    assert api.get("user")["login"] == user.username


def test_writing_with_the_session_needs_the_csrf_token(user: User) -> None:
    api = Api()
    api.client.handler.enforce_csrf_checks = True
    api.client.force_login(user)

    status, message = api.refused("POST", "user/token")
    assert status == 403
    assert "CSRF" in message


def test_only_the_address_may_be_changed(api: Api, user: User) -> None:
    changed = api.json("PATCH", "user", {"email": "o@example.com", "admin": True, "login": "x"})

    assert (changed["email"], changed["admin"], changed["login"]) == (
        "o@example.com",
        False,
        user.username,
    )


def test_a_token_is_shown_again_until_it_is_renewed(api: Api, user: User) -> None:
    first = api.json("POST", "user/token")["token"]
    assert api.json("POST", "user/token")["token"] == first

    renewed = api.json("POST", "user/token?rotate=true")["token"]

    assert renewed != first
    assert api.refused("GET", "user")[0] == 401
    assert Api(renewed).get("user")["login"] == user.username


def test_repos_come_by_slug_with_their_newest_build(api: Api, repo: Repo) -> None:
    Repo.objects.create(namespace="a", name="b", slug="a/b", owner=repo.owner, active=False)
    api.json("POST", f"repos/{repo.slug}/builds")
    api.json("POST", f"repos/{repo.slug}/builds")

    assert [row["slug"] for row in api.get("user/repos")] == ["a/b", repo.slug]
    newest = api.get("user/repos?latest=true")
    assert "build" not in newest[0]
    assert newest[1]["build"]["number"] == 2
    assert [row["build"]["number"] for row in api.get("user/builds")] == [2, 1]


def test_synchronizing_answers_as_clients_expect(api: Api, repo: Repo) -> None:
    assert [row["slug"] for row in api.json("POST", "user/repos")] == [repo.slug]
    assert api.call("POST", "user/repos?async=true").status_code == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "users"),
        ("POST", "users"),
        ("GET", "users/octocat"),
        ("PATCH", "users/octocat"),
        ("DELETE", "users/octocat"),
        ("GET", "users/octocat/repos"),
        ("POST", "users/octocat/token/rotate"),
    ],
)
def test_users_are_for_administrators(api: Api, guest: Api, method: str, path: str) -> None:
    assert api.refused(method, path)[0] == 403
    assert guest.refused(method, path)[0] == 401


def test_a_machine_gets_its_token_once(root: Api) -> None:
    made = root.json("POST", "users", {"login": "bot", "machine": True})
    assert Api(made["token"]).get("user")["machine"] is True

    chosen = root.json("POST", "users", {"login": "b2", "machine": True, "token": "chosen"})
    assert chosen["token"] == "chosen"
    assert "token" not in root.json("POST", "users", {"login": "person"})
    assert "token" not in root.get("users/bot")


@pytest.mark.parametrize(
    ("login", "message"),
    [
        ("", "Invalid username length"),
        ("x" * 51, "Invalid username length"),
        ("a b", "Invalid character in username"),
    ],
)
def test_logins_are_checked(root: Api, login: str, message: str) -> None:
    assert root.refused("POST", "users", {"login": login}) == (400, message)


def test_users_are_found_by_login_and_by_id(root: Api, user: User) -> None:
    assert root.get(f"users/{user.pk}") == root.get("users/octocat")
    assert root.refused("GET", "users/nobody") == (404, "sql: no rows in result set")
    assert [row["login"] for row in root.get("users")] == ["octocat", "root"]


def test_a_blocked_user_is_no_administrator_and_hands_his_repos_over(
    root: Api, user: User, repo: Repo
) -> None:
    heir = User.objects.create_user("heir")
    Perm.objects.create(user=heir, repo=repo, admin=True)
    root.json("PATCH", "users/octocat", {"admin": True})

    changed = root.json("PATCH", "users/octocat", {"active": False, "admin": None})

    assert (changed["active"], changed["admin"]) == (False, False)
    repo.refresh_from_db()
    assert repo.owner == heir


def test_a_deleted_users_repos_stay(root: Api, repo: Repo) -> None:
    assert [row["slug"] for row in root.get("users/octocat/repos")] == [repo.slug]
    assert root.call("DELETE", "users/octocat").status_code == 204

    repo.refresh_from_db()
    assert repo.owner is None


def test_an_administrator_renews_anybodys_token(root: Api, user: User) -> None:
    token = root.json("POST", "users/octocat/token/rotate")["message"]

    assert Api(token).get("user")["login"] == "octocat"
