"""Log in by password or by one-time link, and out again."""

from __future__ import annotations

from typing import Final

from django.contrib import auth, messages
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from builds import secrets
from dashboard import access
from dashboard.forms import Login

_BACKEND: Final = "django.contrib.auth.backends.ModelBackend"
_MAX_FAILURES: Final = 10
_LOCK_S: Final = 300


@never_cache
@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def login(request: HttpRequest) -> HttpResponse:
    """The login form; ten wrong passwords for a name lock it for five minutes."""
    if access.viewer(request):
        return redirect(_next(request))
    if request.method != "POST":
        return _form(request, Login(request))
    key = _failures_key(request.POST.get("username", ""))
    if cache.get(key, 0) >= _MAX_FAILURES:
        messages.error(request, "Too many wrong passwords. Try again in five minutes.")
        return _form(request, Login(request), status=429)
    form = Login(request, request.POST)
    if not form.is_valid():
        cache.set(key, cache.get(key, 0) + 1, _LOCK_S)
        return _form(request, form, status=422)
    cache.delete(key)
    auth.login(request, form.get_user(), backend=_BACKEND)
    return redirect(_next(request))


@never_cache
@require_GET
def login_by_link(request: HttpRequest, key: str) -> HttpResponse:
    """Log in whoever opens a one-time address first."""
    user = secrets.use_login_link(key)
    if user is None:
        messages.error(request, "This login link was used before or is too old.")
        return redirect("dashboard:login")
    auth.login(request, user, backend=_BACKEND)
    return redirect(_next(request))


@require_POST
def logout(request: HttpRequest) -> HttpResponse:
    """Log out."""
    auth.logout(request)
    return redirect("dashboard:login")


def _form(request: HttpRequest, form: Login, status: int = 200) -> HttpResponse:
    context = {"form": form, "next": request.POST.get("next") or request.GET.get("next", "")}
    return render(request, "dashboard/login.html", context, status=status)


def _failures_key(name: str) -> str:
    return "dashboard.login:" + secrets.hash_token(name.lower())


def _next(request: HttpRequest) -> str:
    """Where to go after the login: only to an address of our own."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    safe = url_has_allowed_host_and_scheme(
        wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return wanted if safe else "/"
