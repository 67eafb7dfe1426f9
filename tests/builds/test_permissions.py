from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from django.contrib.auth.models import AnonymousUser

from builds.models import Perm, Repo, User
from builds.permissions import Level, can, visible


@pytest.fixture
def make_repo(make_repo: Callable[..., Repo]) -> Callable[..., Repo]:
    """Rows only: nothing here reads the repository."""
    return functools.partial(make_repo, with_git=False)


LEVELS: tuple[Level, ...] = ("read", "write", "admin")


def allowed(who: User | AnonymousUser | None, repo: Repo) -> str:
    levels = "".join(level[0] for level in LEVELS if can(who, repo, level))
    assert ("r" in levels) == visible(who).filter(pk=repo.pk).exists()
    return levels


@pytest.mark.parametrize(
    ("visibility", "guest", "anyone"),
    [("public", "r", "r"), ("internal", "", "r"), ("private", "", "")],
)
def test_visibility(
    make_repo: Callable[..., Repo], user: User, visibility: str, guest: str, anyone: str
) -> None:
    repo = make_repo(visibility=visibility)
    assert allowed(None, repo) == allowed(AnonymousUser(), repo) == guest
    assert allowed(user, repo) == anyone


@pytest.mark.parametrize(
    ("row", "levels"),
    [
        ({"read": True}, "r"),
        ({"read": True, "write": True}, "rw"),
        ({"read": True, "write": True, "admin": True}, "rwa"),
        ({"read": False}, ""),
    ],
)
def test_rows(
    make_repo: Callable[..., Repo], user: User, row: dict[str, bool], levels: str
) -> None:
    repo = make_repo()
    Perm.objects.create(user=user, repo=repo, **row)
    assert allowed(user, repo) == levels


def test_owners_and_administrators_may_all(make_repo: Callable[..., Repo], user: User) -> None:
    repo = make_repo(owner=user)
    root = User.objects.create_superuser("root")
    assert allowed(user, repo) == allowed(root, repo) == "rwa"
    user.is_active = False
    assert not can(user, repo, "write")
