from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from builds.models import Perm, Repo, Secret
from builds.secrets import unseal
from tests.dashboard import seed
from tests.dashboard.conftest import logged_in

pytestmark = pytest.mark.django_db
PATH = "/octocat/web/settings"
FORM = {
    "config_path": "ci/pipelines.yml",
    "default_branch": "trunk",
    "visibility": "internal",
    "timeout_min": "90",
    "throttle": "3",
    "retry_lost": "1",
    "protected": "on",
    "active": "on",
}


@pytest.fixture
def as_repo_admin(web: Any) -> Client:
    user = seed.user("rita")
    Perm.objects.create(user=user, repo=web, read=True, write=True, admin=True)
    return logged_in(user)


def test_it_saves_settings(as_repo_admin: Client, web: Any) -> None:
    response = as_repo_admin.post(PATH, FORM)

    repo = Repo.objects.get()
    assert response.headers["Location"] == PATH
    assert (repo.config_path, repo.default_branch) == ("ci/pipelines.yml", "trunk")
    assert (repo.visibility, repo.timeout_min, repo.throttle) == ("internal", 90, 3)
    assert repo.protected


def test_only_an_administrator_of_the_server_makes_a_repo_trusted(
    as_repo_admin: Client, as_admin: Client
) -> None:
    as_repo_admin.post(PATH, {**FORM, "trusted": "on"})
    assert not Repo.objects.get().trusted

    as_admin.post(PATH, {**FORM, "trusted": "on"})
    assert Repo.objects.get().trusted


@pytest.mark.parametrize("wrong", [{"timeout_min": "0"}, {"visibility": "x"}, {"throttle": "-1"}])
def test_it_refuses_nonsense(as_repo_admin: Client, wrong: dict[str, str]) -> None:
    response = as_repo_admin.post(PATH, {**FORM, **wrong})

    assert response.status_code == 422
    assert Repo.objects.get().config_path == ".drone.yml"


def test_it_stores_a_secret_sealed_and_never_shows_it(as_repo_admin: Client) -> None:
    as_repo_admin.post(f"{PATH}/secrets", {"name": "key", "value": "sesame\r\nopen\r\n"})
    as_repo_admin.post(f"{PATH}/secrets", {"name": "other", "value": "x", "pull_request": "on"})

    secret = Secret.objects.get(name="key")
    page = as_repo_admin.get(PATH).content.decode()
    assert unseal(secret.data_sealed) == "sesame\nopen\n"
    assert "sesame" not in page
    assert "key" in page
    assert "also for pull requests" in page


def test_a_secret_of_the_same_name_is_replaced(as_repo_admin: Client) -> None:
    for value in ("old", "new"):
        as_repo_admin.post(f"{PATH}/secrets", {"name": "key", "value": value})

    assert unseal(Secret.objects.get().data_sealed) == "new"


def test_a_bad_name_for_a_secret_is_refused_without_echoing_it(as_repo_admin: Client) -> None:
    response = as_repo_admin.post(f"{PATH}/secrets", {"name": "a key", "value": "sesame"})

    assert response.status_code == 422
    assert not Secret.objects.exists()
    assert "sesame" not in response.content.decode()


def test_it_deletes_a_secret_of_its_own_repo_only(as_repo_admin: Client, web: Any) -> None:
    own = Secret.objects.create(repo=web, name="own", data_sealed="x")
    other = Secret.objects.create(repo=seed.repo("a/b"), name="other", data_sealed="x")

    as_repo_admin.post(f"{PATH}/secrets/{own.pk}/delete")
    response = as_repo_admin.post(f"{PATH}/secrets/{other.pk}/delete")

    assert response.status_code == 404
    assert list(Secret.objects.values_list("name", flat=True)) == ["other"]


@pytest.mark.parametrize("path", [PATH, f"{PATH}/secrets", f"{PATH}/secrets/1/delete"])
def test_writers_have_no_settings(as_writer: Client, path: str) -> None:
    assert as_writer.post(path, FORM).status_code == 403
