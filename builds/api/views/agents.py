"""The agents, for administrators and their scripts. Drone has no such calls."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from builds import fleet
from builds.api.base import Bad, Conflict, Missing, View, number_of
from builds.api.shapes import AGENT, Json
from builds.models import Agent
from pipeline.errors import UserError

_AGENT = AGENT.serializer


class AgentUpdate(serializers.Serializer[Any]):
    """What an administrator tells an agent. `labels` replace its own, null gives these back."""

    drain = serializers.BooleanField(required=False)
    disabled = serializers.BooleanField(required=False)
    labels = serializers.DictField(child=serializers.CharField(), required=False, allow_null=True)


class Agents(View):
    """All agents, those that have left too."""

    @extend_schema(responses=_AGENT(many=True))
    def get(self, _request: Request) -> Response:
        """All of them by name."""
        self.root()
        return Response(_documents(Agent.objects.order_by("name")))


class OneAgent(View):
    """An agent."""

    @extend_schema(responses=_AGENT)
    def get(self, _request: Request, number: str) -> Response:
        """How it is."""
        self.root()
        return Response(_document(_find(number)))

    @extend_schema(request=AgentUpdate, responses=_AGENT)
    def patch(self, _request: Request, number: str) -> Response:
        """Drain or disable it, or the contrary, and give it other labels; it is told at once."""
        user = self.root()
        agent, change = _find(number), self.read(AgentUpdate)
        if "labels" in self.body():
            _relabel(agent, change.get("labels"), user)
        for key, (on, off) in (
            ("drain", ("drain", "undrain")),
            ("disabled", ("disable", "enable")),
        ):
            if key in change:
                fleet.tell(agent, on if change[key] else off, user)
        return Response(_document(agent))

    @extend_schema(responses={204: None}, parameters=[OpenApiParameter("force", bool)])
    def delete(self, _request: Request, number: str) -> Response:
        """Forget it; one that is there only with `force=true`, what it runs is an error then."""
        user = self.root()
        agent = _find(number)
        status = _document(agent)["status"]
        if status not in ("offline", "lost") and not self.flag("force"):
            raise Conflict(f"{agent.name} is {status}: disable it first, or use force=true")
        fleet.delete(agent, user)
        return Response(status=204)


class Revoke(View):
    """The end of an agent that is not trusted any more."""

    @extend_schema(request=None, responses=_AGENT)
    def post(self, _request: Request, number: str) -> Response:
        """Make its token worthless and shut its name out; what it runs is an error."""
        user = self.root()
        agent = _find(number)
        fleet.revoke(agent, user)
        return Response(_document(agent))


def _find(number: str) -> Agent:
    agent = Agent.objects.filter(pk=number_of(number)).first()
    if agent is None:
        raise Missing
    return agent


def _relabel(agent: Agent, labels: Any, user: Any) -> None:
    try:
        fleet.relabel(agent, labels, user)
    except UserError as fault:
        raise Bad(str(fault)) from fault


def _document(agent: Agent) -> Json:
    return _documents(Agent.objects.filter(pk=agent.pk))[0]


def _documents(agents: QuerySet[Agent]) -> list[Json]:
    now = timezone.now()
    return [
        {
            **AGENT.json(row),
            "status": fleet.standing(
                left=row["left"],
                seen=row["seen"],
                disabled=row["disabled"],
                drain=row["drain"],
                busy=row["busy"] > 0,
                now=now,
            ),
        }
        for row in agents.values(*AGENT.columns)
    ]
