"""The content security policy: nothing inline, nothing from elsewhere but pictures of people."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

HEADER = "Content-Security-Policy"
_DIRECTIVES = (
    "default-src 'none'",
    "base-uri 'none'",
    "font-src 'self'",
    "form-action 'self'",
    "frame-ancestors 'none'",
    "img-src 'self' data: https:",
    "script-src 'self'",
    "style-src 'self'",
)

Answer = HttpResponseBase | Awaitable[HttpResponseBase]


def policy(request: HttpRequest, style_nonce: str = "") -> str:
    """The policy for one request; the websockets of its own host are named, since not every
    browser counts them as 'self'. `style_nonce` lets in the styles that a script makes with it."""
    connect = "connect-src 'self'"
    try:
        host = request.get_host()
    except DisallowedHost:
        host = ""
    if host:
        connect += f" ws://{host} wss://{host}"
    directives = list(_DIRECTIVES)
    if style_nonce:
        directives[-1] += f" 'nonce-{style_nonce}'"
    return "; ".join((*directives, connect))


@sync_and_async_middleware
def content_security_policy(
    get_response: Callable[[HttpRequest], Answer],
) -> Callable[[HttpRequest], Answer]:
    """Put the policy on every answer that does not bring its own."""

    if iscoroutinefunction(get_response):
        ask_later = cast("Callable[[HttpRequest], Awaitable[HttpResponseBase]]", get_response)

        async def later(request: HttpRequest) -> HttpResponseBase:
            response = await ask_later(request)
            response.headers.setdefault(HEADER, policy(request))
            return response

        return later

    ask = cast("Callable[[HttpRequest], HttpResponseBase]", get_response)

    def now(request: HttpRequest) -> HttpResponseBase:
        response = ask(request)
        response.headers.setdefault(HEADER, policy(request))
        return response

    return now
