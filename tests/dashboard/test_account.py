from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from builds import secrets

pytestmark = pytest.mark.django_db


def test_the_token_is_shown_on_demand_only(as_reader: Client, reader: Any) -> None:
    token = secrets.user_token(reader)

    assert token not in as_reader.get("/account").content.decode()
    shown = as_reader.post("/account", {"action": "show"})

    assert token in shown.content.decode()
    assert "no-store" in shown.headers["Cache-Control"]


def test_a_replaced_token_no_longer_works(as_reader: Client, reader: Any) -> None:
    token = secrets.user_token(reader)

    page = as_reader.post("/account", {"action": "rotate"}).content.decode()

    assert token not in page
    reader.refresh_from_db()
    assert secrets.user_token(reader) in page
    assert secrets.user_by_token(token) is None


def test_it_sets_a_password_and_keeps_the_session(as_reader: Client, reader: Any) -> None:
    new = "a long sentence to remember"
    data = {"action": "password", "new_password1": new, "new_password2": new}

    page = as_reader.post("/account", data, follow=True).content.decode()

    reader.refresh_from_db()
    assert "password was changed" in page
    assert reader.check_password(new)


def test_two_different_passwords_are_refused(as_reader: Client) -> None:
    data = {"action": "password", "new_password1": "one", "new_password2": "two"}

    assert as_reader.post("/account", data).status_code == 422


def test_guests_have_no_account(client: Client) -> None:
    assert client.get("/account").headers["Location"] == "/login?next=/account"
