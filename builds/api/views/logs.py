"""Logs of steps: Drone's lines, plain text, search.

Source: reference server, section 1.3 (logs); text and search are our own.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, Final

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from builds import logs
from builds.api.base import Bad, Missing, View, number_of
from builds.models import Step
from builds.permissions import Level
from pipeline import states

_PER_PART: Final = 1000
_UNSTARTED: Final = frozenset({states.PENDING, states.SKIPPED})


class Line(serializers.Serializer[Any]):
    """A line of a log; `time` in seconds after the step's start."""

    pos = serializers.IntegerField()
    out = serializers.CharField()
    time = serializers.IntegerField()


class Hit(serializers.Serializer[Any]):
    """A line that was found."""

    pos = serializers.IntegerField()
    out = serializers.CharField()


class LogView(View):
    """A view of one step's log."""

    def step(self, place: dict[str, str], level: Level) -> Step:
        """The step at this place, if the caller may."""
        repo = self.repo(place["owner"], place["name"], level)
        build, stage, step = (number_of(place[word]) for word in ("number", "stage", "step"))
        found = Step.objects.filter(
            stage__repo=repo, stage__build__number=build, stage__number=stage, number=step
        ).first()
        if found is None:
            raise Missing
        return found

    def begun(self, place: dict[str, str]) -> Step:
        """The step, if it has a log, or might have one."""
        step = self.step(place, "read")
        if step.status in _UNSTARTED and not logs.next_position(step.pk):
            raise Missing
        return step

    def stream(self, parts: Iterator[bytes], kind: str) -> StreamingHttpResponse:
        """An answer that is made while it is sent."""
        return StreamingHttpResponse(parts, content_type=kind)


class Log(LogView):
    """A step's log."""

    @extend_schema(responses=Line(many=True))
    def get(self, _request: Request, **place: str) -> StreamingHttpResponse:
        """All lines, unfinished ones joined."""
        step = self.begun(place)
        return self.stream(_array(logs.lines(step.pk)), "application/json")

    @extend_schema(responses={204: None})
    def delete(self, _request: Request, **place: str) -> Response:
        """Remove the log of a step that is done."""
        step = self.step(place, "admin")
        if step.status not in states.DONE:
            raise Bad("the step still runs")
        logs.delete(step.pk)
        return Response(status=204)


class LogText(LogView):
    """A step's log as text."""

    @extend_schema(
        responses={
            (200, "text/plain"): OpenApiResponse(OpenApiTypes.STR),
        },
        parameters=[OpenApiParameter("from", int)],
    )
    def get(self, _request: Request, **place: str) -> StreamingHttpResponse:
        """What the step wrote, from line `from` on."""
        step, first = self.begun(place), self.named("from", "0")
        if not first.isdecimal() or len(first) > 18:
            raise Bad("from: expected a line's position")
        response = self.stream(logs.text(step.pk, int(first)), "text/plain; charset=utf-8")
        response["X-Content-Type-Options"] = "nosniff"
        return response


class LogSearch(LogView):
    """Finding in a step's log."""

    @extend_schema(responses=Hit(many=True), parameters=[OpenApiParameter("q", str, required=True)])
    def get(self, _request: Request, **place: str) -> Response:
        """The lines that contain `q`, in any case; at most 1000."""
        step, wanted = self.begun(place), self.named("q")
        if not wanted:
            raise Bad("q: expected what to look for")
        hits = logs.search(step.pk, wanted)
        return Response([{"pos": hit.position, "out": hit.line} for hit in hits])


def _array(lines: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """A JSON array, a thousand elements at a time."""
    opening = "["
    while some := list(itertools.islice(lines, _PER_PART)):
        yield (opening + json.dumps(some, separators=(",", ":"))[1:-1]).encode()
        opening = ","
    yield b"[]" if opening == "[" else b"]"
