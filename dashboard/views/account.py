"""One's own account: the API token and the password."""

from __future__ import annotations

from django.conf import settings
from django.contrib import auth, messages
from django.contrib.auth.forms import SetPasswordForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from builds import secrets
from builds.models import Audit, User
from dashboard import access


@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
@access.logged_in
def page(request: HttpRequest) -> HttpResponse:
    """The account; a POST's `action` shows or replaces the token, or sets the password."""
    user = access.known_viewer(request)
    action = request.POST.get("action", "")
    form = SetPasswordForm(user, request.POST if action == "password" else None)
    token = ""
    if action == "show":
        token = secrets.user_token(user)
    elif action == "rotate":
        token = secrets.user_token(user, rotate=True)
        Audit.objects.create(user=user, action="token.rotated", subject=user.username)
        messages.success(request, "This is your new token. The old one no longer works.")
    elif action == "password" and form.is_valid():
        return _set_password(request, form)
    context = {"token": token, "form": form, "server": settings.PUBLIC_URL}
    status = 422 if form.errors else 200
    return render(request, "dashboard/account.html", context, status=status)


def _set_password(request: HttpRequest, form: SetPasswordForm[User]) -> HttpResponse:
    form.save()
    auth.update_session_auth_hash(request, form.user)
    messages.success(request, "The password was changed.")
    return redirect("dashboard:account")
