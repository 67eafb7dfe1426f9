from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from builds import secrets
from tests.dashboard import seed

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def forget_failures() -> Any:
    cache.clear()
    yield
    cache.clear()


def who(client: Client) -> str | None:
    return client.session.get("_auth_user_id")


def test_it_logs_in_by_password_and_goes_where_one_wanted(client: Client) -> None:
    user = seed.user("mira")

    data = {"username": "mira", "password": "miramira", "next": "/agents"}
    response = client.post("/login", data)

    assert response.headers["Location"] == "/agents"
    assert who(client) == str(user.pk)


def test_it_says_that_name_and_password_do_not_match(client: Client) -> None:
    seed.user("mira")

    response = client.post("/login", {"username": "mira", "password": "wrong"})

    assert response.status_code == 422
    assert "do not match" in response.content.decode()
    assert who(client) is None


@pytest.mark.parametrize("elsewhere", ["https://evil.example", "//evil.example", "javascript:a()"])
def test_it_goes_to_no_other_site(client: Client, elsewhere: str) -> None:
    seed.user("mira")

    data = {"username": "mira", "password": "miramira", "next": elsewhere}
    response = client.post("/login", data)

    assert response.headers["Location"] == "/"


def test_it_locks_a_name_after_ten_wrong_passwords(client: Client) -> None:
    seed.user("mira")
    for _ in range(10):
        client.post("/login", {"username": "Mira", "password": "wrong"})

    response = client.post("/login", {"username": "mira", "password": "miramira"})

    assert response.status_code == 429
    assert who(client) is None


def test_it_logs_in_by_link_once(client: Client) -> None:
    user = seed.user("mira")
    key = secrets.login_link(user)

    response = client.get(f"/login/link/{key}")
    again = Client().get(f"/login/link/{key}", follow=True)

    assert response.headers["Location"] == "/"
    assert who(client) == str(user.pk)
    assert "used before" in again.content.decode()


def test_a_look_ahead_does_not_use_the_link_up(client: Client) -> None:
    key = secrets.login_link(seed.user("mira"))

    assert client.head(f"/login/link/{key}").status_code == 405
    client.get(f"/login/link/{key}")
    assert who(client)


def test_it_logs_out_by_post_only(as_admin: Client) -> None:
    assert as_admin.get("/logout").status_code == 405

    as_admin.post("/logout")

    assert who(as_admin) is None


def test_who_is_logged_in_needs_no_login_page(as_admin: Client) -> None:
    assert as_admin.get("/login?next=/account").headers["Location"] == "/account"


def test_a_form_without_its_token_is_refused() -> None:
    client = Client(enforce_csrf_checks=True)

    response = client.post("/login", {"username": "mira", "password": "miramira"})

    assert response.status_code == 403
    assert "too old" in response.content.decode()
