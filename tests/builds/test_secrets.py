from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.utils import timezone

from builds import secrets
from builds.models import Build, LoginLink, Repo, Secret, User
from pipeline.errors import PlatformError


@pytest.fixture
def make_repo(make_repo: Callable[..., Repo]) -> Callable[..., Repo]:
    """Rows only: nothing here reads the repository."""
    return functools.partial(make_repo, with_git=False)


def test_what_is_sealed_is_opened_by_any_of_the_keys(settings: Any) -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    settings.SECRET_KEYS = [old]
    sealed = secrets.seal("hunter2")
    assert "hunter2" not in sealed
    settings.SECRET_KEYS = [new, old]
    assert secrets.unseal(sealed) == "hunter2"
    settings.SECRET_KEYS = [new]
    with pytest.raises(PlatformError, match="another secret key"):
        secrets.unseal(sealed)
    assert secrets.unseal("") == ""


def test_tokens_are_random_and_known_by_hash() -> None:
    one, two = secrets.new_token("cia"), secrets.new_token("cia")
    assert one.text != two.text and one.text.startswith("cia_")
    assert secrets.matches(one.sha256, one.text) and not secrets.matches(one.sha256, two.text)
    assert one.text not in repr(one)


def test_a_user_token_is_shown_again_until_it_is_rotated(user: User) -> None:
    token = secrets.user_token(user)
    assert len(token) == 32 and secrets.user_token(user) == token
    assert secrets.user_by_token(token) == user
    rotated = secrets.user_token(user, rotate=True)
    assert secrets.user_by_token(token) is None and secrets.user_by_token(rotated) == user
    User.objects.update(is_active=False)
    assert secrets.user_by_token(rotated) is None
    assert secrets.user_by_token("") is None


def test_a_login_link_works_once_and_not_too_late(user: User) -> None:
    key = secrets.login_link(user)
    assert secrets.use_login_link(key) == user
    assert secrets.use_login_link(key) is None
    late = secrets.login_link(user)
    LoginLink.objects.update(expires=timezone.now() - timedelta(seconds=1), used=None)
    assert secrets.use_login_link(late) is None
    assert secrets.use_login_link("guess") is None


def test_a_repo_has_its_own_secret_and_signer(make_repo: Callable[..., Repo]) -> None:
    repo = make_repo()
    stale = Repo.objects.get()
    secret, signer = secrets.repo_secret(repo), secrets.repo_signer(repo)
    assert (secrets.repo_secret(stale), secrets.repo_signer(stale)) == (secret, signer)
    again = Repo.objects.get()
    assert (secrets.repo_secret(again), secrets.repo_signer(again)) == (secret, signer)
    assert secret != signer and len(secret) == len(signer) == 32


def secret(name: str, value: str, repo: Repo | None = None, **flags: bool) -> None:
    namespace = "" if repo else "octocat"
    Secret.objects.create(
        name=name, repo=repo, namespace=namespace, data_sealed=secrets.seal(value), **flags
    )


def test_a_stage_gets_what_it_names_and_the_repos_own_wins(make_repo: Callable[..., Repo]) -> None:
    repo, other = make_repo(), make_repo(name="other")
    secret("password", "repo's", repo)
    secret("PASSWORD", "octocat's")
    secret("shared", "octocat's")
    secret("empty", "", repo)
    secret("empty", "octocat's")
    secret("unasked", "x", repo)
    secret("others", "x", other)
    build = Build(repo=repo, event="push")
    names = ["Password", "shared", "empty", "others", "nobody"]
    assert secrets.stage_secrets(build, names) == {
        "Password": "repo's", "shared": "octocat's", "empty": "octocat's",
    }  # fmt: skip
    assert secrets.stage_secrets(build, []) == {}
    both = {"password": "repo's", "PassWord": "repo's"}
    assert secrets.stage_secrets(build, both) == both


def test_a_pull_request_gets_only_what_is_marked_for_it(make_repo: Callable[..., Repo]) -> None:
    repo = make_repo()
    secret("open", "yes", repo, pull_request=True)
    secret("closed", "no", repo)
    build = Build(repo=repo, event="pull_request")
    assert secrets.stage_secrets(build, ["open", "closed"]) == {"open": "yes"}


@pytest.mark.parametrize(
    ("visibility", "event", "fork", "given"),
    [
        ("public", "push", "", True),
        ("public", "pull_request", "", True),
        ("public", "pull_request", "someone/hello", False),
        ("private", "pull_request", "someone/hello", True),
    ],
)
def test_encrypted_secrets_are_withheld_from_forks_of_public_repos(
    make_repo: Callable[..., Repo], visibility: str, event: str, fork: str, given: bool
) -> None:
    build = Build(repo=make_repo(visibility=visibility), event=event, source_repo=fork)
    assert secrets.may_open_encrypted(build) is given
