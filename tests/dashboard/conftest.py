from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.dashboard import seed


@pytest.fixture
def web(db: None) -> Any:
    """The repo `octocat/web`, private."""
    return seed.repo("octocat/web")


@pytest.fixture
def admin(db: None) -> Any:
    return seed.user("mira", is_superuser=True, is_staff=True)


@pytest.fixture
def writer(web: Any) -> Any:
    return _with_perm("jonas", web, write=True)


@pytest.fixture
def reader(web: Any) -> Any:
    return _with_perm("li", web)


def _with_perm(name: str, repo: Any, **rights: bool) -> Any:
    from builds.models import Perm

    user = seed.user(name)
    Perm.objects.create(user=user, repo=repo, read=True, **rights)
    return user


@pytest.fixture
def as_admin(admin: Any) -> Client:
    return logged_in(admin)


@pytest.fixture
def as_writer(writer: Any) -> Client:
    return logged_in(writer)


@pytest.fixture
def as_reader(reader: Any) -> Client:
    return logged_in(reader)


def logged_in(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client
