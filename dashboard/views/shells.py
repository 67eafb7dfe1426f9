"""The shell of a failed step that is kept for debugging."""

from __future__ import annotations

import secrets as random

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from builds import debug
from builds.models import Build, Repo
from dashboard import access
from dashboard.security import HEADER, policy


@require_safe
@never_cache
@access.for_repo("write")
def page(request: HttpRequest, repo: Repo, number: int, stage: int, step: int) -> HttpResponse:
    """A terminal in the place of the step; where nothing is kept the page says so."""
    build = _build(request, repo, number)
    nonce = random.token_urlsafe(16)
    context = {
        "repo": repo,
        "build": build,
        "stage": stage,
        "number": step,
        "hold": debug.held_step(build.pk, stage, step),
        "nonce": nonce,
    }
    answer = render(request, "dashboard/shell.html", context)
    answer.headers[HEADER] = policy(request, nonce)
    return answer


@require_POST
@access.for_repo("write")
def end(request: HttpRequest, repo: Repo, number: int, stage: int, step: int) -> HttpResponse:
    """Let the step go: the build goes on."""
    build = _build(request, repo, number)
    hold = debug.held_step(build.pk, stage, step)
    if hold is None:
        messages.info(request, "Debugging had ended before.")
    else:
        debug.release(hold, access.known_viewer(request).username)
    return redirect("dashboard:build", repo.namespace, repo.name, number)


def _build(request: HttpRequest, repo: Repo, number: int) -> Build:
    build = access.build_of(repo, number)
    if not debug.may(access.viewer(request), build):
        raise PermissionDenied("Only administrators may debug what comes from a fork.")
    return build
