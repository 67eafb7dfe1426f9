"""Failed steps that are kept for debugging: which, and letting them go."""

from __future__ import annotations

from typing import Final

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from builds import debug
from builds.api.base import Forbidden, Missing, number_of
from builds.api.shapes import HOLD, Json
from builds.api.views.builds import BuildView

_HOLD: Final = HOLD.serializer


class Holds(BuildView):
    """The kept steps of a build."""

    @extend_schema(responses=_HOLD(many=True))
    def get(self, _request: Request, owner: str, name: str, number: str) -> Response:
        """Each with its exit code, when it ends, and who is at its shell (`/ws/shell/{id}`)."""
        build = self.build(owner, name, number, "read")
        found: list[Json] = HOLD.all(debug.holds(build.pk))
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
        numbers = (number_of(one) for one in (stage, step))
        hold = debug.held_step(build.pk, *numbers)
        if hold is None:
            raise Missing
        debug.release(hold, self.user().username)
        return Response(status=204)
