"""Agents: who they are, what they do, and what an administrator tells them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from builds import fleet, permissions
from builds.models import Agent
from dashboard import access
from dashboard.presenters import agents as present

_SAID: Final[Mapping[str, str]] = {
    "drain": "{} finishes what it has and takes nothing new.",
    "undrain": "{} takes work again.",
    "disable": "{} finishes what it has, then leaves; it may not come back until it is enabled.",
    "enable": "{} may work again.",
}
_GONE = timedelta(days=1)


@require_http_methods(["GET", "HEAD", "POST"])
@access.logged_in
def index(request: HttpRequest) -> HttpResponse:
    """All agents that were here within a day; administrators post `agent` and `action`."""
    if request.method == "POST":
        return _act(request)
    now = timezone.now()
    agents = Agent.objects.filter(Q(left=None) | Q(left__gt=now - _GONE)).order_by("name")
    visible = frozenset(
        permissions.visible(access.viewer(request))
        .filter(stage__leases__state__in=["open", "closing"])
        .values_list("pk", flat=True)
    )
    context = {
        "rows": present.rows(list(agents), visible, now),
        "is_admin": access.is_admin(request),
        "server": settings.PUBLIC_URL,
    }
    part = request.headers.get("HX-Request") and "dashboard/_agents.html"
    return render(request, part or "dashboard/agents.html", context)


def _act(request: HttpRequest) -> HttpResponse:
    if not access.is_admin(request):
        raise PermissionDenied("Only administrators may tell agents what to do.")
    word = request.POST.get("action", "")
    if word not in _SAID or not request.POST.get("agent", "").isdigit():
        messages.error(request, "No such action.")
        return redirect("dashboard:agents")
    agent = get_object_or_404(Agent, pk=int(request.POST["agent"]))
    fleet.tell(agent, word, access.known_viewer(request))
    messages.success(request, _SAID[word].format(agent.name))
    return redirect("dashboard:agents")
