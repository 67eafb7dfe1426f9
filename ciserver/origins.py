"""Which pages may open a websocket: browsers send cookies along from any page, so we ask which."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from channels.security.websocket import WebsocketDenier


class SameOrigin:
    """Refuses websockets that another host's page opens. Programs send no origin and may pass."""

    def __init__(self, application: Any, public_url: str) -> None:
        self._application = application
        self._public_host = urlsplit(public_url).netloc

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        allowed = self._allows(headers.get(b"origin"), headers.get(b"host", b""))
        await (self._application if allowed else WebsocketDenier())(scope, receive, send)

    def _allows(self, origin: bytes | None, host: bytes) -> bool:
        if origin is None:
            return True
        page = urlsplit(origin.decode("latin1")).netloc
        return bool(page) and page in (host.decode("latin1"), self._public_host)
