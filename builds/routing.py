"""Addresses of websockets and of held requests, with what they share in one process."""

from __future__ import annotations

from typing import Any

from django.urls import path

from builds.api.held import Held
from builds.consumers import BuildSocket, LogSocket
from builds.shells import AgentShellSocket, ShellSocket
from builds.tails import Tails
from pipeline.wire import PREFIX

_tails = Tails()

websocket_urlpatterns = [
    path("ws/build/<int:build>", BuildSocket.as_asgi()),
    path("ws/log/<int:step>", LogSocket.as_asgi(tails=_tails)),
    path("ws/shell/<int:step>", ShellSocket.as_asgi()),
    path(
        f"{PREFIX.lstrip('/')}leases/<str:lease>/steps/<int:step>/shell", AgentShellSocket.as_asgi()
    ),
]


def hold(application: Any) -> Held:
    """An ASGI application that answers held requests and streams itself, and passes on the rest."""
    return Held(application, _tails)
