"""HTTP on a few threads that keep their database connections.

Django gives every request under ASGI a thread of its own, hence a new database connection. Here a
request runs, with all its middleware, in one call on one of N lanes: threads that live as long as
the process, each with its connection. Held requests, streams and websockets are not Django's: they
are ASGI applications in front of it and hold no lane; what they ask of the database runs on
whichever lane is free.
"""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.exception import convert_exception_to_response
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries
from django.http import HttpRequest
from django.http.response import HttpResponseBase


def executor(lanes: int) -> Executor:
    """The lanes of this process."""
    return ThreadPoolExecutor(max_workers=lanes, thread_name_prefix="lane")


class OnLanes:
    """Lets everything thread-sensitive below an ASGI application run on the lanes."""

    def __init__(self, application: Any, lanes: Executor) -> None:
        self._application = application
        self._lanes = lanes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with ThreadSensitiveContext(executor=self._lanes):
            await self._application(scope, receive, send)


class LaneHandler(ASGIHandler):
    """Django's handler with the synchronous chain of middleware, called on a lane."""

    def __init__(self) -> None:
        super().__init__()
        # `_answer` looks after its own thread's connections: these would run on another lane.
        request_started.disconnect(close_old_connections)
        request_started.disconnect(reset_queries)
        request_finished.disconnect(close_old_connections)

    def load_middleware(self, is_async: bool = False) -> None:
        """Build the chain that `get_response` runs."""
        del is_async
        super().load_middleware(is_async=False)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a request."""
        return await sync_to_async(self._answer, thread_sensitive=True)(request)

    def _answer(self, request: HttpRequest) -> HttpResponseBase:
        close_old_connections()
        reset_queries()
        try:
            return self.get_response(request)
        finally:
            close_old_connections()


class BareHandler(LaneHandler):
    """A `LaneHandler` without middleware: for a protocol that has no sessions, pages or forms."""

    def load_middleware(self, is_async: bool = False) -> None:
        """Build a chain that is the view alone."""
        del is_async
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        view_alone: Any = super()._get_response  # type: ignore[misc]
        self._middleware_chain = convert_exception_to_response(view_alone)


class ByPrefix:
    """Sends requests below `prefix` to one application and all others to another."""

    def __init__(self, prefix: str, inside: Any, outside: Any) -> None:
        self._prefix = prefix
        self._inside = inside
        self._outside = outside

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        chosen = self._inside if scope["path"].startswith(self._prefix) else self._outside
        await chosen(scope, receive, send)
