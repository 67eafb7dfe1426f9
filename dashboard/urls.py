"""Every page of the dashboard. One-part addresses are ours, owner/name ones are repos."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponseRedirect
from django.templatetags.static import static
from django.urls import URLPattern, URLResolver, include, path

from dashboard.views import account, agents, builds, logs, repos, sessions, shells
from dashboard.views import settings as repo_settings

Paths = list[URLPattern | URLResolver]


def favicon(_request: HttpRequest) -> HttpResponseRedirect:
    """The picture that our own pages name."""
    return HttpResponseRedirect(static("dashboard/favicon.svg"))


app_name = "dashboard"

_build: Paths = [
    path("", builds.page, name="build"),
    path("/live", builds.live, name="live"),
    path("/cancel", builds.cancel, name="cancel"),
    path("/restart", builds.restart, name="restart"),
    path("/approve", builds.approve, name="approve"),
    path("/decline", builds.decline, name="decline"),
    path("/<int:stage>/<int:step>", builds.page, name="step"),
    path("/<int:stage>/<int:step>/log.txt", logs.download, name="download"),
    path("/<int:stage>/<int:step>/lines", logs.lines, name="lines"),
    path("/<int:stage>/<int:step>/shell", shells.page, name="shell"),
    path("/<int:stage>/<int:step>/shell/end", shells.end, name="end-shell"),
]
_repo: Paths = [
    path("", builds.index, name="builds"),
    path("/new", builds.new, name="new-build"),
    path("/settings", repo_settings.page, name="settings"),
    path("/settings/secrets", repo_settings.add_secret, name="add-secret"),
    path("/settings/secrets/<int:key>/delete", repo_settings.delete_secret, name="delete-secret"),
    path("/<int:number>", include(_build)),
]
urlpatterns: Paths = [
    path("", repos.index, name="repos"),
    path("favicon.ico", favicon),  # what browsers ask for where a page names none
    path("add", repos.add, name="add-repo"),
    path("login", sessions.login, name="login"),
    path("login/link/<str:key>", sessions.login_by_link, name="login-link"),
    path("logout", sessions.logout, name="logout"),
    path("agents", agents.index, name="agents"),
    path("account", account.page, name="account"),
    path("<str:owner>/<str:name>", include(_repo)),
]
