from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from django.urls import path

from ciserver import urls


def locked(_request: Any) -> None:
    raise OperationalError("database is locked")


def broken(_request: Any) -> None:
    raise ValueError("a bug")


class Harm:
    """Addresses whose views fail."""

    urlpatterns = (
        path("api/locked", locked),
        path("api/broken", broken),
        path("broken", broken),
        *urls.urlpatterns,
    )
    handler500 = staticmethod(urls.handler500)


@pytest.fixture
def client(settings: Any) -> Client:
    settings.ROOT_URLCONF = Harm
    return Client(raise_request_exception=False)


def test_a_healthy_server_says_so(client: Client, db: None) -> None:
    answer = client.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"ok": True})


def test_the_version_is_told(client: Client) -> None:
    assert client.get("/version").json()["source"] == "ciserver"


def test_a_locked_database_is_503_and_says_when_to_try_again(client: Client) -> None:
    answer = client.get("/api/locked")

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "2"
    assert answer.json() == {"message": "the database does not answer"}


def test_a_bug_is_500_and_tells_programs_nothing_of_it(client: Client) -> None:
    answer = client.get("/api/broken")

    assert (answer.status_code, answer.json()) == (500, {"message": "internal error"})


def test_a_bug_is_a_page_for_people(client: Client) -> None:
    answer = client.get("/broken")

    assert answer.status_code == 500
    assert answer.headers["Content-Type"].startswith("text/html")
