"""The web process's entry point: HTTP on lanes, websockets of this server's own pages."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ciserver.settings")

import django

django.setup()

from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings

from builds.routing import hold, websocket_urlpatterns
from ciserver.lanes import LaneHandler, OnLanes, executor
from ciserver.origins import SameOrigin

application = OnLanes(
    ProtocolTypeRouter(
        {
            "http": hold(LaneHandler()),
            "websocket": SameOrigin(URLRouter(websocket_urlpatterns), settings.PUBLIC_URL),
        }
    ),
    executor(settings.LANES),
)
