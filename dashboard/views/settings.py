"""A repo's settings and secrets, for its administrators."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from builds.models import Repo, Secret
from dashboard import access
from dashboard.forms import NewSecret, RepoSettings


@require_http_methods(["GET", "HEAD", "POST"])
@access.for_repo("admin")
def page(request: HttpRequest, repo: Repo) -> HttpResponse:
    """The settings as a form, the secrets as a list of names."""
    form = RepoSettings(request.POST or None, instance=repo, server_admin=access.is_admin(request))
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, "The settings were saved.")
        return redirect("dashboard:settings", repo.namespace, repo.name)
    if form.errors:
        repo.refresh_from_db()
    return _page(request, repo, form, NewSecret())


@require_POST
@sensitive_post_parameters("value")
@access.for_repo("admin")
def add_secret(request: HttpRequest, repo: Repo) -> HttpResponse:
    """Store a secret; a new value for a name that exists."""
    form = NewSecret(request.POST)
    if not form.is_valid():
        settings = RepoSettings(instance=repo, server_admin=access.is_admin(request))
        return _page(request, repo, settings, form)
    form.save(repo)
    messages.success(request, f"The secret {form.cleaned_data['name']} was stored.")
    return redirect("dashboard:settings", repo.namespace, repo.name)


@require_POST
@access.for_repo("admin")
def delete_secret(request: HttpRequest, repo: Repo, key: int) -> HttpResponse:
    """Remove a secret."""
    secret = get_object_or_404(Secret, pk=key, repo=repo)
    secret.delete()
    messages.success(request, f"The secret {secret.name} was deleted.")
    return redirect("dashboard:settings", repo.namespace, repo.name)


def _page(request: HttpRequest, repo: Repo, form: RepoSettings, secret: NewSecret) -> HttpResponse:
    context = {
        "repo": repo,
        "form": form,
        "secret_form": secret,
        "secrets": list(Secret.objects.filter(repo=repo).order_by("name")),
        "may_write": True,
        "may_admin": True,
    }
    status = 422 if form.errors or secret.errors else 200
    return render(request, "dashboard/settings.html", context, status=status)
