"""Failed steps that are kept for debugging: which, and letting them go."""

from __future__ import annotations

from typing import Final

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from builds import debug
from builds.api.base import Forbidden, Missing
from builds.api.shapes import HOLD, Json
from builds.api.views.builds import BuildView
from builds.models import Hold

_HOLD: Final = HOLD.serializer


class Holds(BuildView):
    """The kept steps of a build."""

    @extend_schema(responses=_HOLD(many=True))
    def get(self, _request: Request, owner: str, name: str, number: str) -> Response:
        """Each with its exit code, when it ends, and who is at its shell (`/ws/shell/{id}`)."""
        build = self.build(owner, name, number, "read")
        rows = Hold.objects.filter(pk__in=[hold.pk for hold in debug.held(build.pk)])
        found: list[Json] = HOLD.all(rows.order_by("step__stage__number", "step__number"))
        return Response(found)


class OneHold(BuildView):
    """A kept step."""

    @extend_schema(responses={204: None})
    def delete(
        self, _request: Request, owner: str, name: str, number: str, stage: str, step: str
    ) -> Response:
        """Let it go: the build goes on."""
        build = self.build(owner, name, number, "write")
        if not debug.may(self.user(), build):
            raise Forbidden
        wanted = (int(stage), int(step))
        for hold in debug.held(build.pk):
            if (hold.step.stage.number, hold.step.number) == wanted:
                debug.release(hold, self.user().username)
                return Response(status=204)
        raise Missing
