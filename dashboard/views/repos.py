"""The first page: all repositories one may see; and adding one."""

from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from builds import permissions
from dashboard import access
from dashboard.forms import AddRepo
from dashboard.presenters import repos as rows

PAGE_REPOS = 50


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Repositories with their newest build; `?q=` filters by name, `?all=1` adds inactive ones."""
    user = access.viewer(request)
    wanted, inactive = request.GET.get("q", "").strip(), bool(request.GET.get("all"))
    visible = permissions.visible(user)
    if user is None and not visible.exists():
        return redirect("dashboard:login")
    found = rows.matching(visible, wanted, inactive=inactive)
    page = Paginator(found, PAGE_REPOS).get_page(request.GET.get("page"))
    context = {
        "q": wanted,
        "all": inactive,
        "page": page,
        "rows": rows.rows(list(page)),
        "none_at_all": not wanted and not page.paginator.count and not visible.exists(),
        "may_add": access.is_admin(request),
    }
    part = request.headers.get("HX-Request") and "dashboard/_repos.html"
    return render(request, part or "dashboard/repos.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@access.admins_only
def add(request: HttpRequest) -> HttpResponse:
    """Add a repository by its git address."""
    form = AddRepo(request.POST or None)
    if request.method == "POST" and form.is_valid():
        repo = form.register(access.known_viewer(request))
        if repo is not None:
            messages.success(request, f"{repo.slug} is here. Start a build of it.")
            return redirect("dashboard:new-build", repo.namespace, repo.name)
    status = 422 if form.errors else 200
    return render(request, "dashboard/add_repo.html", {"form": form}, status=status)
