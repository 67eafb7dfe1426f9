"""A step's log as a file, and in pieces for the page's script."""

from __future__ import annotations

import re

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from builds import logs
from builds.models import Repo, Step
from dashboard import access
from dashboard.presenters import logs as rows

MAX_LINES = 2000


@require_safe
@access.for_repo("read")
def download(
    request: HttpRequest, repo: Repo, number: int, stage: int, step: int
) -> HttpResponseBase:
    """The whole log as text; `?view=1` opens it in the browser."""
    found = _step(repo, number, stage, step)
    response = StreamingHttpResponse(logs.text(found.pk), content_type="text/plain; charset=utf-8")
    response["X-Content-Type-Options"] = "nosniff"
    if not request.GET.get("view"):
        word = re.sub(r"[^\w.-]+", "-", f"{repo.name}-{number}-{found.name}", flags=re.ASCII)
        response["Content-Disposition"] = f'attachment; filename="{word}.log"'
    return response


@require_safe
@access.for_repo("read")
def lines(request: HttpRequest, repo: Repo, number: int, stage: int, step: int) -> HttpResponse:
    """`?first=N&limit=M` (at most 2000) lines as JSON."""
    found = _step(repo, number, stage, step)
    try:
        first, limit = int(request.GET.get("first", 0)), int(request.GET.get("limit", MAX_LINES))
    except ValueError:
        return JsonResponse({"message": "first and limit are numbers"}, status=400)
    if first < 0 or first >= 1 << 62:
        return JsonResponse({"message": "first counts from 0"}, status=400)
    return JsonResponse(rows.frame(found.pk, first, min(max(1, limit), MAX_LINES)))


def _step(repo: Repo, number: int, stage: int, step: int) -> Step:
    found = Step.objects.filter(
        stage__build__repo=repo, stage__build__number=number, stage__number=stage, number=step
    ).first()
    if found is None:
        raise Http404("no such step")
    return found
