"""Whole documents of the API, gathered in few queries: repos and builds with what hangs below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from django.db.models import Max

from builds import debug, permissions
from builds.api.auth import Caller
from builds.api.shapes import BUILD, REPO, STAGE, STEP, Json, group
from builds.models import Build, Repo, Stage, Step


def repo(repo_id: int) -> Json:
    """One repo."""
    return REPO.json(Repo.objects.filter(pk=repo_id).values(*REPO.columns).get())


def repo_for(caller: Caller, found: Repo) -> Json:
    """One repo with what the caller may do."""
    return {
        **repo(found.pk),
        "permissions": {
            "read": permissions.can(caller, found, "read"),
            "write": permissions.can(caller, found, "write"),
            "admin": permissions.can(caller, found, "admin"),
        },
    }


def build(build_id: int) -> Json:
    """One build with its stages and their steps."""
    document = BUILD.json(Build.objects.filter(pk=build_id).values(*BUILD.columns).get())
    stages = STAGE.all(Stage.objects.filter(build=build_id).order_by("number"))
    steps = group(
        STEP.all(Step.objects.filter(stage__build=build_id).order_by("number")), "step_id"
    )
    for stage in stages:
        if stage["id"] in steps:
            stage["steps"] = steps[stage["id"]]
    if stages:
        document["stages"] = stages
    if document.get("debug"):
        _mark_held(build_id, steps)
    return document


def _mark_held(build_id: int, steps: Mapping[int, list[Json]]) -> None:
    """Say of steps that are kept for debugging until when."""
    until = {hold.step_id: int(hold.expires.timestamp()) for hold in debug.held(build_id)}
    for step in (one for some in steps.values() for one in some if one["id"] in until):
        step["debug_until"] = until[step["id"]]


def with_newest_builds(repos: list[Json]) -> list[Json]:
    """The repos, each with its newest build, if it has one."""
    newest = (
        Build.objects.filter(repo__in=[row["id"] for row in repos])
        .values("repo")
        .annotate(newest=Max("id"))
        .values("newest")
    )
    builds = {row["repo_id"]: row for row in BUILD.all(Build.objects.filter(pk__in=newest))}
    return [{**row, "build": builds[row["id"]]} if row["id"] in builds else row for row in repos]


def feed(builds: Iterable[Json]) -> list[Json]:
    """Repos with one `build` each, in the builds' order."""
    rows = list(builds)
    repos = {
        row["id"]: row for row in REPO.all(Repo.objects.filter(pk__in={b["repo_id"] for b in rows}))
    }
    return [{**repos[row["repo_id"]], "build": row} for row in rows]
