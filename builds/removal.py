"""Removing repositories and builds with all that is theirs.

The rows go at once, and the logs of as many steps as a request may wait for. The rest of the logs
and the files of artifacts are left to retention: it removes what belongs to nothing any more, so
a crash at any point leaves nothing behind.
"""

from __future__ import annotations

from typing import Any, Final

from django.db.models import QuerySet

from builds import logs
from builds.models import Build, Repo, Step

#: Logs that are removed while somebody waits: a bucket takes its time for each.
_AT_ONCE: Final = 50


def remove_repos(repos: QuerySet[Repo]) -> None:
    """Delete repositories with their builds."""
    _remove(repos, Step.objects.filter(stage__repo__in=repos))


def remove_builds(builds: QuerySet[Build]) -> None:
    """Delete builds with their logs and artifacts."""
    _remove(builds, Step.objects.filter(stage__build__in=builds))


def _remove(rows: QuerySet[Any], steps: QuerySet[Step]) -> None:
    first = list(steps.values_list("pk", flat=True)[:_AT_ONCE])
    rows.delete()
    logs.delete_all(first)
