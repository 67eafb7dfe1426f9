"""The queue and the server as a whole, for administrators.

Source: reference server, section 1.5.
"""

from __future__ import annotations

from typing import Any, Final

from django.db.models import Count, Q
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from builds import dispatch, queue
from builds.api import documents
from builds.api.base import View
from builds.api.shapes import BUILD, BUILD_STAGE, REPO, STAGE
from builds.models import Agent, Build, Repo, ServerState, Stage, User
from pipeline import states

_OPEN: Final = (states.PENDING, states.RUNNING)
_MAX_BUILDS: Final = 50
_MAX_RINGS: Final = 64


class Queue(View):
    """Stages that wait or run."""

    @extend_schema(responses=STAGE.serializer(many=True))
    def get(self, _request: Request) -> Response:
        """All of them, oldest first."""
        self.root()
        return Response(STAGE.all(Stage.objects.filter(status__in=_OPEN).order_by("id")))

    @extend_schema(request=None, responses={204: None})
    def post(self, _request: Request) -> Response:
        """Resume: waiting stages are given out again."""
        self.root()
        ServerState.objects.filter(key=queue.PAUSED).delete()
        pending = Stage.objects.filter(status=states.PENDING).order_by()
        for name, count in pending.values_list("queue").annotate(Count("id")):
            dispatch.ring(name, min(count, _MAX_RINGS))
        return Response(status=204)

    @extend_schema(responses={204: None})
    def delete(self, _request: Request) -> Response:
        """Pause: what runs goes on, nothing new begins."""
        user = self.root()
        ServerState.objects.get_or_create(key=queue.PAUSED, defaults={"value": user.username})
        return Response(status=204)


class Incomplete(View):
    """Builds that are not done."""

    @extend_schema(responses=REPO.serializer(many=True))
    def get(self, _request: Request) -> Response:
        """Their repos, each with its `build`; the 50 newest."""
        self.root()
        rows = Build.objects.filter(stages__status__in=_OPEN).distinct().order_by("-id")
        return Response(documents.feed(BUILD.all(rows[:_MAX_BUILDS])))


class IncompleteStages(View):
    """Stages that wait or run, with their builds."""

    @extend_schema(responses=BUILD_STAGE.serializer(many=True))
    def get(self, _request: Request) -> Response:
        """All of them, oldest first."""
        self.root()
        return Response(BUILD_STAGE.all(Stage.objects.filter(status__in=_OPEN).order_by("id")))


class Total(serializers.Serializer[Any]):
    """How many there are."""

    total = serializers.IntegerField()


class Platform(serializers.Serializer[Any]):
    """What one platform's agents do, and what waits for them."""

    subscribers = serializers.IntegerField()
    os = serializers.CharField()
    arch = serializers.CharField()
    pending = serializers.IntegerField()
    running = serializers.IntegerField()


class StatsOutput(serializers.Serializer[Any]):
    """How much there is of everything."""

    users = Total()
    repos = serializers.DictField()
    builds = serializers.DictField()
    pipelines = Platform(many=True)


class Stats(View):
    """Numbers about the server."""

    @extend_schema(responses=StatsOutput)
    def get(self, _request: Request) -> Response:
        """Users, active repos, builds, and stages and agents per platform."""
        self.root()
        counts = Build.objects.aggregate(
            pending=Count("id", Q(status=states.PENDING)),
            running=Count("id", Q(status=states.RUNNING)),
            total=Count("id"),
        )
        return Response(
            {
                "users": {"total": User.objects.count()},
                "repos": {"active": Repo.objects.filter(active=True).count()},
                "builds": counts,
                "pipelines": _platforms(),
                "events": {"subscribers": 0},
                "streams": {},
                "watchers": None,
            }
        )


def _platforms() -> list[dict[str, Any]]:
    agents = Agent.objects.filter(left=None).order_by("os", "arch")
    rows = {
        (os, arch): {"subscribers": count, "os": os, "arch": arch, "pending": 0, "running": 0}
        for os, arch, count in agents.values_list("os", "arch").annotate(Count("id"))
    }
    stages = Stage.objects.filter(status__in=_OPEN).order_by("os", "arch")
    for os, arch, status, count in stages.values_list("os", "arch", "status").annotate(Count("id")):
        empty = {"subscribers": 0, "os": os, "arch": arch, "pending": 0, "running": 0}
        rows.setdefault((os, arch), empty)[status] = count
    return list(rows.values())
