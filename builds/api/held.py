"""Requests that the server holds open: an agent's presence, and event streams.

They are plain ASGI, without middleware and without a lane: what waits costs a task and no thread.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import structlog
from django.db import DatabaseError

from builds.api import presence, stream
from builds.api.exchange import Exchange, Refusal
from builds.tails import Tails

_log = structlog.get_logger(__name__)
_PRESENCE: Final = re.compile(r"^/agent/v1/agents/(?P<agent>\d{1,18})/?$")
_STREAM: Final = re.compile(
    r"^/api/stream(?:/(?P<owner>[^/]+)/(?P<name>[^/]+)"
    r"(?:/(?P<build>\d{1,9})/(?P<stage>\d{1,9})/(?P<step>\d{1,9}))?)?/?$"
)

Handler = Callable[[], Awaitable[None]]


class Held:
    """Answers held requests; everything else goes to the application below."""

    def __init__(self, application: Any, tails: Tails) -> None:
        self._application = application
        self._tails = tails

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send)
        handler = self._handler(exchange)
        if handler is None:
            await self._application(scope, receive, send)
            return
        async with _answered(exchange):
            await handler()

    def _handler(self, exchange: Exchange) -> Handler | None:
        path = exchange.path
        if exchange.method == "PUT" and (match := _PRESENCE.match(path)):
            agent = int(match["agent"])
            return lambda: presence.present(exchange, agent)
        if exchange.method == "GET" and (match := _STREAM.match(path)):
            if match["step"]:
                numbers = tuple(int(match[word]) for word in ("build", "stage", "step"))
                slug = f"{match['owner']}/{match['name']}"
                return lambda: stream.log(exchange, self._tails, slug, numbers)
            if match["owner"]:
                slug = f"{match['owner']}/{match['name']}"
                return lambda: stream.events(exchange, slug)
            return lambda: stream.events(exchange)
        return None


@contextlib.asynccontextmanager
async def _answered(exchange: Exchange) -> AsyncIterator[None]:
    """Turn what goes wrong before an answer was begun into one."""
    try:
        yield
    except Refusal as refusal:
        await exchange.json({"message": refusal.message, "code": refusal.code}, refusal.status)
    except DatabaseError as fault:
        _log.warning("held.database_away", path=exchange.path, error=str(fault))
        if not exchange.begun:
            message = {"message": "the database does not answer", "code": "database:away"}
            await exchange.json(message, 503, {"Retry-After": "2"})
    finally:
        await exchange.close()
