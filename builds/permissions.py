"""Who may see and do what with a repo."""

from __future__ import annotations

from typing import Literal

from django.contrib.auth.models import AnonymousUser
from django.db.models import Q, QuerySet

from builds.models import Perm, Repo, User

Level = Literal["read", "write", "admin"]


def can(user: User | AnonymousUser | None, repo: Repo, level: Level) -> bool:
    """Whether a user (or guest) may read, write or administer a repo.

    Source: reference server, section 0, "Repo access".
    """
    if user is None or not user.is_authenticated:
        return level == "read" and repo.visibility == "public"
    if not user.is_active:
        return False
    if user.is_superuser or repo.owner_id == user.pk:
        return True
    if level == "read" and repo.visibility in ("public", "internal"):
        return True
    return Perm.objects.filter(user=user, repo=repo, **{level: True}).exists()


def belongs(user: User, namespace: str, *, admin: bool = False) -> bool:
    """Whether a user is a member of a namespace, or an administrator of it.

    He is where he bears its name, owns a repo in it, or has (admin) rights on one.
    Source: reference server, section 0, "Org access".
    """
    if not user.is_active:
        return False
    if user.is_superuser or user.username == namespace:
        return True
    if Repo.objects.filter(namespace=namespace, owner=user).exists():
        return True
    rights = Perm.objects.filter(user=user, repo__namespace=namespace, read=True)
    return (rights.filter(admin=True) if admin else rights).exists()


def visible(user: User | AnonymousUser | None) -> QuerySet[Repo]:
    """The repos a user (or guest) may read."""
    repos = Repo.objects.all()
    if user is None or not user.is_authenticated or not user.is_active:
        return repos.filter(visibility="public")
    if user.is_superuser:
        return repos
    return repos.filter(
        Q(visibility__in=("public", "internal"))
        | Q(owner=user)
        | Q(pk__in=Perm.objects.filter(user=user, read=True).values("repo"))
    )


def is_foreign(repo: Repo, source_repo: str) -> bool:
    """Whether a commit comes from another repository than the one it is built in."""
    return bool(source_repo) and source_repo.lower() != repo.slug.lower()
