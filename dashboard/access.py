"""Who may open a page: what stands between a request and a view."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404

from builds import permissions
from builds.models import Build, Repo, User

P = ParamSpec("P")
Answer = HttpResponseBase
RepoView = Callable[Concatenate[HttpRequest, Repo, P], Answer]
View = Callable[..., Answer]


def viewer(request: HttpRequest) -> User | None:
    """The person who is logged in, or None."""
    return request.user if isinstance(request.user, User) else None


def known_viewer(request: HttpRequest) -> User:
    """The person who is logged in.

    Raises: PermissionDenied where nobody is; views behind `logged_in` never see it.
    """
    user = viewer(request)
    if user is None:
        raise PermissionDenied("log in first")
    return user


def is_admin(request: HttpRequest) -> bool:
    """Whether an administrator of the server is logged in."""
    user = viewer(request)
    return user is not None and user.is_active and user.is_superuser


def logged_in(view: View) -> View:
    """Send visitors to the login page first."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Answer:
        if viewer(request) is None:
            return redirect_to_login(request.get_full_path())
        return view(request, *args, **kwargs)

    return guarded


def admins_only(view: View) -> View:
    """For administrators of the server."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Answer:
        if not is_admin(request):
            raise PermissionDenied("This page is for administrators.")
        return view(request, *args, **kwargs)

    return logged_in(guarded)


def for_repo(need: permissions.Level) -> Callable[[RepoView[P]], View]:
    """Give the view the repo of its address, to those who have the right `need` on it.

    Who may not read a repo is told that there is none; who may read but not more gets 403.
    """

    def decorate(view: RepoView[P]) -> View:
        @wraps(view)
        def guarded(
            request: HttpRequest, owner: str, name: str, *args: P.args, **kwargs: P.kwargs
        ) -> Answer:
            repo = Repo.objects.filter(slug=f"{owner}/{name}").first()
            user = viewer(request)
            if repo is not None and permissions.can(user, repo, need):
                return view(request, repo, *args, **kwargs)
            if user is None:
                return redirect_to_login(request.get_full_path())
            if repo is not None and permissions.can(user, repo, "read"):
                raise PermissionDenied(f"You may look at {repo.slug}, but not do this.")
            raise Http404("no such repository")

        return guarded

    return decorate


def build_of(repo: Repo, number: int) -> Build:
    """The build with that number.

    Raises: Http404.
    """
    return get_object_or_404(Build.objects.select_related("repo"), repo=repo, number=number)
