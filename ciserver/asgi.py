"""The web process's entry point: HTTP on lanes, websockets of this server's own pages."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ciserver.settings")

import django

django.setup()

from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings

from builds.routing import hold, websocket_urlpatterns
from ciserver.lanes import BareHandler, ByPrefix, LaneHandler, OnLanes, executor
from ciserver.origins import SameOrigin
from pipeline.wire import PREFIX

lanes = executor(settings.LANES)
application = OnLanes(
    ProtocolTypeRouter(
        {
            "http": hold(ByPrefix(PREFIX, BareHandler(lanes), LaneHandler(lanes))),
            "websocket": SameOrigin(URLRouter(websocket_urlpatterns), settings.PUBLIC_URL),
        }
    ),
    lanes,
)
