"""Who asks: a token in the header or a parameter, else the session cookie of the pages.

Source: reference server, section 0 (Auth). A present header or parameter disables the cookie; a bad
token makes a guest, not an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest, SimpleCookie

from builds import secrets
from builds.models import User

Caller = User | AnonymousUser
PARAMETER = "access_token"


def bearer(header: str) -> str:
    """The token of an `Authorization` header; a bare token works."""
    word, _, rest = header.strip().partition(" ")
    return rest.strip() if word.lower() == "bearer" else header.strip()


def token_of(request: HttpRequest) -> str | None:
    """The token a request carries, or None where it carries none."""
    header = request.headers.get("Authorization")
    if header is not None:
        return bearer(header)
    token = request.GET.get(PARAMETER)
    if token is None and request.content_type == "application/x-www-form-urlencoded":
        token = request.POST.get(PARAMETER)
    return token


def scope_header(scope: Mapping[str, Any], name: bytes) -> str:
    """A header of a socket's or stream's request, or empty."""
    found: bytes = dict(scope["headers"]).get(name, b"")
    return found.decode("latin1")


def scope_user(scope: Mapping[str, Any]) -> Caller:
    """Who opened a socket or a stream. Asks the database."""
    query = parse_qs(scope["query_string"].decode("latin1"))
    if b"authorization" in dict(scope["headers"]):
        token = bearer(scope_header(scope, b"authorization"))
        return secrets.user_by_token(token) or AnonymousUser()
    if PARAMETER in query:
        return secrets.user_by_token(query[PARAMETER][0]) or AnonymousUser()
    cookie = SimpleCookie(scope_header(scope, b"cookie")).get(settings.SESSION_COOKIE_NAME)
    if cookie is None:
        return AnonymousUser()
    request: Any = SimpleNamespace(session=SessionStore(cookie.value))
    user: Caller = get_user(request)
    return user if user.is_active else AnonymousUser()
