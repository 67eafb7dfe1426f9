"""Badges and the feed that desktop build monitors read.

Source: reference server, section 1.5.
"""

from __future__ import annotations

from typing import Any, Final
from xml.sax.saxutils import quoteattr

from django.conf import settings
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request

from builds.api.base import View
from builds.api.views.builds import latest
from builds.models import Build, Repo
from pipeline import states

_SUCCESS: Final = ("success", 91, "#4c1")
_FAILURE: Final = ("failure", 83, "#e05d44")
_STARTED: Final = ("started", 87, "#dfb317")
_ERROR: Final = ("error", 76, "#9f9f9f")
_NONE: Final = ("none", 75, "#9f9f9f")
_BADGES: Final = {
    states.SUCCESS: _SUCCESS,
    states.PENDING: _STARTED,
    states.RUNNING: _STARTED,
    states.BLOCKED: _STARTED,
    states.ERROR: _ERROR,
}
_LEFT_WIDTH: Final = 37
_MONITOR: Final = {
    states.SUCCESS: "Success",
    states.FAILURE: "Failure",
    states.ERROR: "Exception",
    states.KILLED: "Exception",
    states.DECLINED: "Exception",
}
_BUILDING: Final = (states.PENDING, states.RUNNING, states.BLOCKED)


class Badge(View):
    """A picture of how a repo is."""

    authentication_classes = ()

    @extend_schema(
        auth=[],
        responses={(200, "image/svg+xml"): OpenApiResponse(OpenApiTypes.STR)},
        parameters=[OpenApiParameter("branch", str), OpenApiParameter("ref", str)],
    )
    def get(self, _request: Request, owner: str, name: str) -> HttpResponse:
        """The badge of the newest build of `branch`, else of `ref`, else of the default branch."""
        repo = Repo.objects.filter(slug=f"{owner}/{name}").first()
        pk = latest(repo, self.named("branch"), self.named("ref")) if repo else None
        status = Build.objects.filter(pk=pk).values_list("status", flat=True).first() if pk else ""
        text, width, colour = _BADGES.get(status, _FAILURE) if status else _NONE
        return HttpResponse(_svg(text, width, colour), content_type="image/svg+xml")


class Monitor(View):
    """A repo's newest build for CCMenu and its like."""

    @extend_schema(responses={(200, "application/xml"): OpenApiResponse(OpenApiTypes.STR)})
    def get(self, _request: Request, owner: str, name: str) -> HttpResponse:
        """One project; empty and 404 where there is no build."""
        repo = self.repo(owner, name, "read")
        build = Build.objects.filter(repo=repo, number=repo.counter).first()
        if build is None:
            return HttpResponse(status=404)
        return HttpResponse(_projects(repo, build), content_type="application/xml")


def _svg(text: str, width: int, colour: str) -> str:
    right = width - _LEFT_WIDTH
    middle_left, middle_right = _LEFT_WIDTH * 5, _LEFT_WIDTH * 10 + right * 5
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" '
        f'aria-label="build: {text}"><title>build: {text}</title>'
        '<linearGradient id="b" x2="0" y2="100%"><stop offset="0" stop-color="#bbb" '
        'stop-opacity=".1"/><stop offset="1" stop-opacity=".1"/></linearGradient>'
        f'<clipPath id="a"><rect width="{width}" height="20" rx="3" fill="#fff"/></clipPath>'
        f'<g clip-path="url(#a)"><rect width="{_LEFT_WIDTH}" height="20" fill="#555"/>'
        f'<rect x="{_LEFT_WIDTH}" width="{right}" height="20" fill="{colour}"/>'
        f'<rect width="{width}" height="20" fill="url(#b)"/></g>'
        '<g fill="#fff" text-anchor="middle" font-size="110" '
        'font-family="DejaVu Sans,Verdana,Geneva,sans-serif">'
        f'<text x="{middle_left}" y="140" transform="scale(.1)">build</text>'
        f'<text x="{middle_right}" y="140" transform="scale(.1)">{text}</text></g></svg>'
    )


def _projects(repo: Repo, build: Build) -> str:
    building = build.status in _BUILDING
    when = build.finished or build.started or build.created
    values: dict[str, Any] = {
        "name": repo.slug,
        "activity": "Building" if building else "Sleeping",
        "lastBuildStatus": _MONITOR.get(build.status, "Unknown"),
        "lastBuildLabel": "Unknown" if building else build.number,
        "lastBuildTime": when.isoformat(timespec="seconds"),
        "webUrl": f"{settings.PUBLIC_URL}/{repo.slug}/{build.number}",
    }
    attributes = " ".join(f"{key}={quoteattr(str(value))}" for key, value in values.items())
    return f"<Projects><Project {attributes}/></Projects>"
