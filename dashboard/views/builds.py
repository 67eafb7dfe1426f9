"""Builds of a repo, one build with its log, and what people do with them."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from builds import debug, permissions, transitions, triggers
from builds.models import Build, Repo, Stage, Step
from dashboard import access
from dashboard.forms import NewBuild
from dashboard.presenters import builds as present
from dashboard.presenters import logs as log_rows
from dashboard.presenters import repos as rows
from dashboard.presenters import results
from pipeline import states
from pipeline.errors import PlatformError, UserError

PAGE_BUILDS = 30
FILTERS = (states.SUCCESS, states.FAILURE, states.ERROR, states.KILLED, states.RUNNING,
           states.PENDING)  # fmt: skip


@require_safe
@access.for_repo("read")
def index(request: HttpRequest, repo: Repo) -> HttpResponse:
    """A repo's builds, newest first: `?q=` and `?status=` filter, `?before=N` pages."""
    wanted = request.GET.get("q", "").strip()
    status = request.GET.get("status", "")
    status = status if status in states.ALL else ""
    before = _number(request.GET.get("before"))
    found = rows.builds_matching(repo, wanted, status)
    if before is not None:
        found = found.filter(number__lt=before)
    some = list(found[: PAGE_BUILDS + 1])
    builds = some[:PAGE_BUILDS]
    context = {
        "repo": repo,
        "rows": [present.row(build) for build in builds],
        "q": wanted,
        "status": status,
        "statuses": FILTERS,
        "before": before,
        "older": builds[-1].number if len(some) > PAGE_BUILDS else None,
        **_rights(request, repo),
    }
    part = request.headers.get("HX-Request") and "dashboard/_builds.html"
    return render(request, part or "dashboard/builds.html", context)


@require_safe
@never_cache
@access.for_repo("read")
def page(
    request: HttpRequest, repo: Repo, number: int, stage: int = 0, step: int = 0
) -> HttpResponse:
    """A build, its stages, and the log of the step named, or of the one worth looking at."""
    build = access.build_of(repo, number)
    stages = present.load_stages(build)
    shown = _step(stages, stage, step) if stage else present.choose(stages)
    context = _context(request, build, stages, shown) | {"auto": not stage, "own_page": stage}
    if shown is not None:
        context |= _log(request, shown)
    if not request.headers.get("HX-Request"):
        context |= _results(build)
    part = request.headers.get("HX-Request") and "dashboard/_step_swap.html"
    return render(request, part or "dashboard/build.html", context)


@require_safe
@never_cache
@access.for_repo("read")
def live(request: HttpRequest, repo: Repo, number: int) -> HttpResponse:
    """The parts of a build's page that change: its head and, for `?stage=N`, those stages.

    `?step=` is the key of the step whose log the page shows. Without `stage`, all of them.
    """
    build = access.build_of(repo, number)
    stages = present.load_stages(build)
    wanted = {_number(word) for word in request.GET.getlist("stage")}
    shown = _step_by_key(stages, _number(request.GET.get("step")))
    context = _context(request, build, stages, shown)
    if wanted and shown is not None:
        context["stages"] = [row for row in context["stages"] if row.stage.number in wanted]
    if not context["head"].open:
        context |= _results(build)
    return render(request, "dashboard/_live.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@access.for_repo("write")
def new(request: HttpRequest, repo: Repo) -> HttpResponse:
    """Start a build of a branch or commit, with parameters."""
    initial = {"branch": request.GET.get("branch") or repo.default_branch}
    form = NewBuild(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        build = _start(request, repo, form)
        if build is not None:
            return _back(build)
    context = {"repo": repo, "form": form, **_rights(request, repo)}
    return render(request, "dashboard/new_build.html", context, status=422 if form.errors else 200)


def _start(request: HttpRequest, repo: Repo, form: NewBuild) -> Build | None:
    """The build that the form asks for; None when the form says what is wrong."""
    try:
        build = triggers.create(
            repo,
            user=access.known_viewer(request),
            branch=form.cleaned_data["branch"] or repo.default_branch,
            commit=form.cleaned_data["commit"],
            params=form.cleaned_data["parameters"],
        )
    except (UserError, PlatformError) as fault:
        form.add_error(None, str(fault))
        return None
    if build is None:
        form.add_error(None, "No pipeline in the file is for this branch and the event “custom”.")
    return build


@require_POST
@access.for_repo("write")
def cancel(request: HttpRequest, repo: Repo, number: int) -> HttpResponse:
    """Stop a build."""
    build = access.build_of(repo, number)
    if not transitions.cancel(build.pk, by=access.known_viewer(request).username):
        messages.info(request, f"Build {number} had ended before.")
    return _back(build)


@require_POST
@access.for_repo("write")
def restart(request: HttpRequest, repo: Repo, number: int) -> HttpResponse:
    """Build the same commit again, as a new build; with `debug`, failed steps are kept."""
    build = access.build_of(repo, number)
    try:
        again = triggers.restart(
            build, user=access.known_viewer(request), debug="debug" in request.POST
        )
    except (UserError, PlatformError) as fault:
        messages.error(request, str(fault))
        return _back(build)
    if again is None:
        messages.info(request, "No build was started: the pipeline file excludes this event.")
        return _back(build)
    return _back(again)


@require_POST
@access.for_repo("admin")
def approve(request: HttpRequest, repo: Repo, number: int) -> HttpResponse:
    """Let the blocked stages of a build run."""
    build = access.build_of(repo, number)
    who = access.known_viewer(request).username
    try:
        for stage in Stage.objects.filter(build=build, status=states.BLOCKED).order_by("number"):
            transitions.approve(stage, by=who)
    except transitions.IllegalMove as fault:
        messages.info(request, str(fault))
    return _back(build)


@require_POST
@access.for_repo("admin")
def decline(request: HttpRequest, repo: Repo, number: int) -> HttpResponse:
    """Refuse the blocked stages of a build."""
    build = access.build_of(repo, number)
    try:
        transitions.decline(build, by=access.known_viewer(request).username)
    except transitions.IllegalMove as fault:
        messages.info(request, str(fault))
    return _back(build)


def _back(build: Build) -> HttpResponse:
    return redirect("dashboard:build", build.repo.namespace, build.repo.name, build.number)


def _rights(request: HttpRequest, repo: Repo) -> dict[str, bool]:
    user = access.viewer(request)
    return {
        "may_write": permissions.can(user, repo, "write"),
        "may_admin": permissions.can(user, repo, "admin"),
    }


def _context(
    request: HttpRequest, build: Build, stages: list[Stage], shown: Step | None
) -> dict[str, Any]:
    rights = _rights(request, build.repo)
    return {
        "repo": build.repo,
        "build": build,
        "head": present.head(build, stages),
        "stages": present.stage_rows(build, stages, shown),
        "step": shown,
        "best": present.choose(stages),
        **rights,
        "may_debug": rights[f"may_{debug.level(build.repo, build.source_repo)}"],
    }


def _log(request: HttpRequest, step: Step) -> dict[str, Any]:
    """What of the log stands in the page: the end, the part from `?first=`, or what `?q=` finds."""
    wanted = request.GET.get("q", "").strip()
    first = _number(request.GET.get("first"))
    return {
        "q": wanted,
        "hits": log_rows.hits(step.pk, wanted) if wanted else None,
        "max_hits": log_rows.MAX_HITS,
        "window": log_rows.window(step, first),
        "finished": step.status in states.DONE,
    }


def _results(build: Build) -> dict[str, Any]:
    """Tests and artifacts; while a build runs they stand in the page when it is loaded anew."""
    return {"tests": results.tests(build), "files": results.files(build)}


def _step(stages: list[Stage], stage: int, step: int) -> Step:
    for row in stages:
        if row.number == stage:
            for candidate in row.steps.all():
                if candidate.number == step:
                    return candidate
    raise Http404("no such step")


def _step_by_key(stages: list[Stage], key: int | None) -> Step | None:
    every = (step for stage in stages for step in stage.steps.all())
    return next((step for step in every if step.pk == key), None)


def _number(text: str | None) -> int | None:
    if text and text.isascii() and text.isdigit() and len(text) < 16:
        return int(text)
    return None
