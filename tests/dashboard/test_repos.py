from __future__ import annotations

import pytest
from django.test import Client

from builds.models import Repo
from builds.secrets import unseal
from dashboard.forms import slug_of
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


def test_an_admin_adds_a_repo(as_admin: Client) -> None:
    response = as_admin.post("/add", {"url": "https://git.example.com/octocat/web.git"})

    repo = Repo.objects.get(slug="octocat/web")
    assert response.headers["Location"] == "/octocat/web/new"
    assert repo.git_http_url == "https://git.example.com/octocat/web.git"
    assert repo.link == "https://git.example.com/octocat/web"
    assert len(unseal(repo.secret_sealed)) == len(unseal(repo.signer_sealed)) == 32


def test_an_ssh_address_is_kept_as_one(as_admin: Client) -> None:
    as_admin.post("/add", {"url": "git@git.example.com:octocat/web.git"})

    repo = Repo.objects.get(slug="octocat/web")
    assert (repo.git_ssh_url, repo.git_http_url) == ("git@git.example.com:octocat/web.git", "")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"url": "ftp://example.com/a/b"}, "Expected https://"),
        ({"url": "--upload-pack=evil"}, "Not an address"),
        ({"url": "ext::sh -c evil"}, "Not an address"),
        ({"url": "https://me:pass@example.com/a/b"}, "password"),
        ({"url": "https://example.com/a/b", "slug": "api/b"}, "Expected owner/name"),
        ({"url": "https://example.com/a/b", "slug": "a/b/c"}, "Expected owner/name"),
        ({"url": "https://example.com/octocat/taken"}, "here already"),
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


@pytest.mark.parametrize(
    ("url", "slug"),
    [
        ("https://git.example.com/octocat/web.git", "octocat/web"),
        ("ssh://git@git.example.com:22/group/sub/web", "sub/web"),
        ("git@git.example.com:octocat/web.git", "octocat/web"),
        ("/srv/git/my project/.git", "local/my-project"),
        ("file:///srv/git/web.git", "local/web"),
        ("https://git.example.com/web", "local/web"),
    ],
)
def test_a_name_is_read_from_the_address(url: str, slug: str) -> None:
    assert slug_of(url) == slug
