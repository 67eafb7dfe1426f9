"""Repositories with their newest build, for the first page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Max, Q, QuerySet

from builds.models import Build, Repo


@dataclass(frozen=True, slots=True)
class RepoRow:
    """A repo and its newest build, if it has any."""

    repo: Repo
    build: Build | None


def matching(repos: QuerySet[Repo], wanted: str, *, inactive: bool) -> QuerySet[Repo]:
    """The repos whose slug contains every word of `wanted`; only active ones unless asked."""
    for word in wanted.split():
        repos = repos.filter(slug__icontains=word)
    if not inactive:
        repos = repos.filter(active=True)
    return repos.order_by("slug")


def rows(repos: Sequence[Repo]) -> list[RepoRow]:
    """Each repo with its newest build, in two queries however many they are."""
    newest = Max("builds__id")
    last = dict(
        Repo.objects.filter(pk__in=[repo.pk for repo in repos])
        .annotate(last=newest)
        .order_by()
        .values_list("pk", "last")
    )
    builds = Build.objects.in_bulk([key for key in last.values() if key])
    return [RepoRow(repo, builds.get(last.get(repo.pk) or 0)) for repo in repos]


def builds_matching(repo: Repo, wanted: str, status: str) -> QuerySet[Build]:
    """A repo's builds, newest first, whose message, branch, author, commit or number match."""
    builds = Build.objects.filter(repo=repo).order_by("-number")
    if status:
        builds = builds.filter(status=status)
    for word in wanted.split():
        fits = (
            Q(message__icontains=word)
            | Q(title__icontains=word)
            | Q(target__icontains=word)
            | Q(source__icontains=word)
            | Q(ref__icontains=word)
            | Q(author_login__icontains=word)
            | Q(author_name__icontains=word)
            | Q(event__icontains=word)
            | Q(after__istartswith=word)
        )
        number = word.removeprefix("#")
        if number.isascii() and number.isdigit() and len(number) < 10:
            fits |= Q(number=int(number))
        builds = builds.filter(fits)
    return builds
