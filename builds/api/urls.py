"""Addresses of the REST API and of the agent protocol. A slash at the end changes nothing."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, JsonResponse
from django.urls import URLPattern, re_path
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.views import SpectacularAPIView

from builds.api import agent
from builds.api.views import (
    agents,
    badges,
    builds,
    debug,
    logs,
    repos,
    results,
    secrets,
    system,
    templates,
    users,
)


def route(address: str, view: Any) -> URLPattern:
    """A pattern of an address such as `repos/{owner}/{name}`; a `{number}` is of digits."""
    parts = [_part(part) for part in address.split("/")]
    pattern: URLPattern = re_path(rf"^api/{'/'.join(parts)}/?$", view.as_view())
    return pattern


def _part(part: str) -> str:
    if not part.startswith("{"):
        return part
    name = part.strip("{}")
    if name == "path":
        return "(?P<path>.+?)"
    kind = r"\d+" if name in ("number", "stage", "step") else "[^/]+"
    return f"(?P<{name}>{kind})"


def unknown(_request: HttpRequest) -> JsonResponse:
    """Anything else below /api."""
    return JsonResponse({"message": "Not Found"}, status=404)


_REPO = "repos/{owner}/{name}"
_BUILD = _REPO + "/builds/{number}"
_LOG = _BUILD + "/logs/{stage}/{step}"

urlpatterns = [
    *agent.urlpatterns,
    route("user", users.Self),
    route("user/token", users.Token),
    route("user/repos", users.OwnRepos),
    route("user/builds", users.OwnBuilds),
    route("user/builds/recent", users.OwnBuilds),
    route("users", users.Users),
    route("users/{login}", users.OneUser),
    route("users/{login}/repos", users.UserRepos),
    route("users/{login}/token/rotate", users.RotateToken),
    route("repos", repos.Repos),
    route(_REPO, repos.OneRepo),
    route(_REPO + "/chown", repos.Chown),
    route(_REPO + "/repair", repos.Repair),
    route(_REPO + "/collaborators", repos.Collaborators),
    route(_REPO + "/collaborators/{login}", repos.Collaborator),
    route(_REPO + "/sign", repos.Sign),
    route(_REPO + "/encrypt", repos.Encrypt),
    route(_REPO + "/encrypt/secret", repos.Encrypt),
    route(_REPO + "/secrets", secrets.RepoSecrets),
    route(_REPO + "/secrets/{secret}", secrets.RepoSecret),
    route(_REPO + "/builds", builds.Builds),
    route(_REPO + "/builds/latest", builds.Latest),
    route(_REPO + "/builds/branches", builds.Branches),
    route(_REPO + "/builds/pulls", builds.Pulls),
    route(_REPO + "/builds/deployments", builds.Deployments),
    route(_BUILD, builds.OneBuild),
    route(_BUILD + "/promote", builds.Promote),
    route(_BUILD + "/rollback", builds.Rollback),
    route(_BUILD + "/approve/{stage}", builds.Approve),
    route(_BUILD + "/decline", builds.Decline),
    route(_BUILD + "/decline/{stage}", builds.Decline),
    route(_LOG, logs.Log),
    route(_LOG + "/text", logs.LogText),
    route(_LOG + "/search", logs.LogSearch),
    route(_BUILD + "/debug", debug.Holds),
    route(_BUILD + "/debug/{stage}/{step}", debug.OneHold),
    route(_BUILD + "/tests", results.Tests),
    route(_BUILD + "/artifacts", results.Artifacts),
    route(_BUILD + "/artifacts/{path}", results.OneArtifact),
    route("secrets", secrets.AllSecrets),
    route("secrets/{namespace}", secrets.OrgSecrets),
    route("secrets/{namespace}/{name}", secrets.OrgSecret),
    route("templates", templates.AllTemplates),
    route("templates/{namespace}", templates.Templates),
    route("templates/{namespace}/{name}", templates.OneTemplate),
    route("queue", system.Queue),
    route("builds/incomplete", system.Incomplete),
    route("builds/incomplete/v2", system.IncompleteStages),
    route("system/stats", system.Stats),
    route("agents", agents.Agents),
    route("agents/{number}", agents.OneAgent),
    route("agents/{number}/revoke", agents.Revoke),
    route("badges/{owner}/{name}/status.svg", badges.Badge),
    route("badges/{owner}/{name}/cc.xml", badges.Monitor),
    re_path(r"^api/schema/?$", SpectacularAPIView.as_view(), name="schema"),
    re_path(r"^api(?:/.*)?$", csrf_exempt(unknown)),
]
