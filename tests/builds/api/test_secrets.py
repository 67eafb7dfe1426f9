from __future__ import annotations

from collections.abc import Callable

import pytest

from builds.models import Perm, Repo, Secret, Template, User
from builds.secrets import unseal
from tests.builds.api.conftest import Api

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["repo", "namespace"])
def path(request: pytest.FixtureRequest, repo: Repo) -> str:
    """Where the secrets of a repo, and of a namespace, are."""
    return f"repos/{repo.slug}/secrets" if request.param == "repo" else f"secrets/{repo.namespace}"


def test_values_go_in_and_never_come_out(api: Api, path: str) -> None:
    made = api.json("POST", path, {"name": "token", "data": " s3cret\n", "pull_request": True})

    assert made["name"] == "token"
    assert made["pull_request"] is True
    for shown in (made, api.get(f"{path}/token"), api.get(path)[0]):
        assert "data" not in shown
        assert "s3cret" not in str(shown)
    assert unseal(Secret.objects.get().data_sealed) == " s3cret\n"


def test_what_is_not_given_stays(api: Api, path: str) -> None:
    api.json("POST", path, {"name": "token", "data": "one", "pull_request": True})

    api.json("PATCH", f"{path}/token", {"pull_request_push": True})
    secret = Secret.objects.get()
    assert (unseal(secret.data_sealed), secret.pull_request) == ("one", True)
    api.json("PATCH", f"{path}/token", {"data": "two", "pull_request": False})

    secret.refresh_from_db()
    assert (unseal(secret.data_sealed), secret.pull_request) == ("two", False)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"name": "", "data": "x"}, "Invalid Secret Name"),
        ({"name": "a b", "data": "x"}, "Invalid Secret Name"),
        ({"name": "a"}, "Invalid Secret Value"),
        ({"name": "a", "data": ""}, "Invalid Secret Value"),
    ],
)
def test_secrets_are_checked_in_drones_words(
    api: Api, path: str, body: dict[str, str], message: str
) -> None:
    assert api.refused("POST", path, body) == (400, message)


def test_a_second_one_of_the_same_name_is_409(api: Api, path: str) -> None:
    api.json("POST", path, {"name": "token", "data": "x"})

    assert api.refused("POST", path, {"name": "token", "data": "x"})[0] == 409


def test_a_secret_is_removed(api: Api, path: str) -> None:
    api.json("POST", path, {"name": "token", "data": "x"})

    assert api.call("DELETE", f"{path}/token").status_code == 204
    assert api.refused("GET", f"{path}/token")[0] == 404


def test_secrets_need_rights(
    api_of: Callable[[User], Api], guest: Api, path: str, repo: Repo
) -> None:
    reader = User.objects.create_user("reader")
    Perm.objects.create(user=reader, repo=repo, read=True)
    api = api_of(reader)

    assert guest.refused("GET", path)[0] == 401
    for method, body in (("POST", {"name": "a", "data": "b"}), ("GET", None)):
        answer = api.call(method, path, body)
        if path.startswith("secrets/") and method == "GET":
            assert answer.status_code == 200  # a member sees names
        else:
            assert answer.status_code == (401 if path.startswith("secrets/") else 404)


def test_all_namespaces_are_for_administrators(root: Api, api: Api, repo: Repo) -> None:
    api.json("POST", "secrets/octocat", {"name": "a", "data": "b"})
    api.json("POST", f"repos/{repo.slug}/secrets", {"name": "c", "data": "d"})

    assert [(row["namespace"], row["name"]) for row in root.get("secrets")] == [("octocat", "a")]
    assert api.refused("GET", "secrets")[0] == 403


# --- templates ------------------------------------------------------------------------------------


def test_templates_come_and_go(api: Api, repo: Repo) -> None:
    made = api.json("POST", "templates/octocat", {"name": "go.yml", "data": "kind: pipeline"})
    assert made["data"] == "kind: pipeline"
    old_way = {"namespace": "octocat", "name": "go.star", "data": "def main(ctx): pass"}
    api.json("POST", "templates", old_way)

    assert [row["name"] for row in api.get("templates/octocat")] == ["go.star", "go.yml"]
    for method in ("PUT", "PATCH"):
        changed = api.json(method, "templates/octocat/go.yml", {"data": method})
        assert changed["data"] == method
    assert api.get("templates/octocat/go.yml")["data"] == "PATCH"
    assert api.call("DELETE", "templates/octocat/go.yml").status_code == 204
    assert [row.name for row in Template.objects.all()] == ["go.star"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"data": "x"}, "No Template Name Provided"),
        ({"name": "a.yml"}, "No Template Data Provided"),
        ({"name": "a.txt", "data": "x"}, "the name of a template ends in"),
    ],
)
def test_templates_are_checked(api: Api, body: dict[str, str], message: str) -> None:
    status, said = api.refused("POST", "templates/octocat", body)

    assert status == 400
    assert said.startswith(message)


def test_templates_of_others_are_refused(api: Api, root: Api) -> None:
    root.json("POST", "templates/hooli", {"name": "a.yml", "data": "x"})

    assert api.refused("GET", "templates/hooli")[0] == 401
    assert api.refused("GET", "templates")[0] == 403
    assert root.refused("POST", "templates/hooli", {"name": "a.yml", "data": "y"})[0] == 409
    assert root.refused("GET", "templates/hooli/none.yml")[0] == 404
    assert [row["name"] for row in root.get("templates")] == ["a.yml"]
