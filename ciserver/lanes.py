"""HTTP on a few threads that keep their database connections.

Django gives every request under ASGI a thread of its own, hence a new database connection. Here
synchronous views run, with all their middleware, on one of N lanes: threads that live as long as
the process, each with its connection. Asynchronous views (streams, held requests) hold no lane;
what they ask of the database runs on whichever lane is free.
"""

from __future__ import annotations

import inspect
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.base import BaseHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve


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
    """Django's handler, except that a synchronous view's whole chain is one call on a lane."""

    def __init__(self) -> None:
        super().__init__()
        self._chain = _Chain()
        # The chain looks after its own thread's connections: these would run on another lane.
        request_started.disconnect(close_old_connections)
        request_started.disconnect(reset_queries)
        request_finished.disconnect(close_old_connections)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a request."""
        if is_async(request.path_info):
            return await super().get_response_async(request)
        return await sync_to_async(self._chain.answer, thread_sensitive=True)(request)


class _Chain(BaseHandler):
    def __init__(self) -> None:
        super().__init__()
        self.load_middleware(is_async=False)

    def answer(self, request: HttpRequest) -> HttpResponseBase:
        close_old_connections()
        reset_queries()
        try:
            return self.get_response(request)
        finally:
            close_old_connections()


def is_async(path: str) -> bool:
    """Whether the view at `path` is a coroutine function."""
    try:
        view = resolve(path).func
    except Resolver404:
        return False
    return inspect.iscoroutinefunction(view) or getattr(view, "view_is_async", False)
