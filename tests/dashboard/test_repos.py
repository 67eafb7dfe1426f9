from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from builds.models import Repo
from tests.dashboard import seed

pytestmark = pytest.mark.django_db


def test_it_lists_repos_with_their_newest_build(as_admin: Client) -> None:
    web = seed.repo("octocat/web")
    seed.build(web, 1, "success", message="First")
    seed.build(web, 2, "failure", message="Second")

    page = as_admin.get("/").content.decode()

    assert "Second" in page
    assert "First" not in page
    assert "failure" in page


def test_it_shows_only_what_one_may_see(as_reader: Client) -> None:
    seed.repo("octocat/hidden")
    seed.repo("octocat/open", visibility="internal")

    page = as_reader.get("/").content.decode()

    assert 'href="/octocat/web"' in page
    assert 'href="/octocat/open"' in page
    assert "octocat/hidden" not in page


def test_it_filters_by_words_of_the_name(as_admin: Client) -> None:
    for slug in ("octocat/web", "octocat/api", "other/web"):
        seed.repo(slug)

    page = as_admin.get("/", {"q": "octo web"}).content.decode()

    assert 'href="/octocat/web"' in page
    assert 'href="/octocat/api"' not in page
    assert 'href="/other/web"' not in page


def test_it_hides_inactive_ones_unless_asked(as_admin: Client) -> None:
    seed.repo("octocat/old", active=False)

    assert 'href="/octocat/old"' not in as_admin.get("/").content.decode()
    assert 'href="/octocat/old"' in as_admin.get("/?all=1").content.decode()


def test_it_answers_htmx_with_the_list_alone(as_admin: Client) -> None:
    seed.repo("octocat/web")

    page = as_admin.get("/", headers={"HX-Request": "true"}).content.decode()

    assert page.startswith('<div id="repos"')
    assert "<html" not in page


def test_it_takes_the_same_number_of_queries_for_many_repos(
    as_admin: Client, django_assert_max_num_queries: object
) -> None:
    for number in range(60):
        seed.build(seed.repo(f"octocat/r{number}"), 1)

    with django_assert_max_num_queries(8):  # type: ignore[operator]
        page = as_admin.get("/?page=2").content.decode()

    assert "of 60" in page


def test_guests_go_to_the_login_unless_something_is_public(client: Client) -> None:
    assert client.get("/").headers["Location"] == "/login"

    seed.repo("octocat/open", visibility="public")

    assert 'href="/octocat/open"' in client.get("/").content.decode()


def test_an_admin_adds_a_repo(as_admin: Client, admin: Any) -> None:
    data = {"url": "https://git.example.com/octocat/web.git", "default_branch": "trunk"}

    response = as_admin.post("/add", data)

    repo = Repo.objects.get(slug="octocat/web")
    assert response.headers["Location"] == "/octocat/web/new"
    assert (repo.git_http_url, repo.default_branch) == (data["url"], "trunk")
    assert (repo.owner, repo.visibility, repo.trusted) == (admin, "private", False)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"url": "ftp://example.com/a/b"}, "Expected https://"),
        ({"url": "https://me:pass@example.com/a/b"}, "password"),
        ({"url": "https://example.com/a/b", "slug": "api/b"}, "expected owner/name"),
        ({"url": "https://example.com/x", "slug": "octocat/taken"}, "here already"),
        ({"url": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"url": ""}, "required"),
    ],
)
def test_it_says_what_is_wrong_with_an_address(
    as_admin: Client, data: dict[str, str], said: str
) -> None:
    seed.repo("octocat/taken")

    response = as_admin.post("/add", data)

    assert response.status_code == 422
    assert said in response.content.decode()
    assert Repo.objects.count() == 1


def test_others_may_not_add_repos(as_writer: Client, client: Client) -> None:
    data = {"url": "https://git.example.com/octocat/new.git"}

    assert as_writer.post("/add", data).status_code == 403
    assert client.post("/add", data).headers["Location"].startswith("/login")


def test_a_page_that_names_no_icon_gets_ours(client: Client) -> None:
    answer = client.get("/favicon.ico")

    assert answer.status_code == 302
    assert answer["Location"].endswith("favicon.svg")
