"""Callers of the REST API: a system administrator, a user, a guest."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client

if TYPE_CHECKING:  # a conftest is read before Django is set up
    from builds.models import Repo, User


class Api:
    """Calls of the REST API with one token, or none."""

    def __init__(self, token: str = "") -> None:
        self.client = Client(headers={"authorization": f"Bearer {token}"} if token else {})

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        data = body if isinstance(body, (str, bytes)) else json.dumps(body) if body else ""
        kind = options.pop("content_type", "application/json")
        return self.client.generic(method, f"/api/{path}", data, kind, **options)

    def get(self, path: str) -> Any:
        """The JSON of a successful answer."""
        return self.json("GET", path)

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a successful answer."""
        answer = self.call(method, path, body)
        assert answer.status_code == 200, (answer.status_code, answer.content)
        if answer.streaming:
            return json.loads(b"".join(answer.streaming_content))
        return answer.json()

    def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        """Status and message of an error."""
        answer = self.call(method, path, body)
        assert answer.status_code >= 400, answer.content
        return answer.status_code, answer.json()["message"]


@pytest.fixture
def api_of(db: None) -> Callable[[User], Api]:
    """The API as somebody calls it."""
    from builds import secrets

    return lambda user: Api(secrets.user_token(user))


@pytest.fixture
def root_user(db: None) -> User:
    from builds.models import User

    return User.objects.create_user("root", is_superuser=True, is_staff=True)


@pytest.fixture
def root(root_user: User, api_of: Callable[[User], Api]) -> Api:
    """A system administrator."""
    return api_of(root_user)


@pytest.fixture
def api(user: User, api_of: Callable[[User], Api]) -> Api:
    """The user octocat."""
    return api_of(user)


@pytest.fixture
def guest(db: None) -> Api:
    """Somebody without a token."""
    return Api()


@pytest.fixture
def repo(make_repo: Callable[..., Repo], user: User) -> Repo:
    """A private repo of octocat's."""
    return make_repo(owner=user)
