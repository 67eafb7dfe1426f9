"""HTTP on a few threads that keep their database connections.

Django gives every request under ASGI a thread of its own, hence a new database connection. Here a
request runs, with all its middleware, in one call on one of N lanes: threads that live as long as
the process, each with its connection. Held requests, streams and websockets are not Django's: they
are ASGI applications in front of it and hold no lane; what they ask of the database runs on
whichever lane is free.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.exception import convert_exception_to_response
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix


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
    """Django's handler with the synchronous chain of middleware, called on a lane.

    All that Django does for a request is one call there: its own handler makes two tasks and hops
    to a thread twice, to cancel asynchronous views, of which there are none.
    """

    def __init__(self, lanes: Executor) -> None:
        super().__init__()
        # `_answer` looks after its own thread's connections: these would run on another lane.
        request_started.disconnect(close_old_connections)
        request_started.disconnect(reset_queries)
        request_finished.disconnect(close_old_connections)
        self._lanes = lanes

    def load_middleware(self, is_async: bool = False) -> None:
        """Build the chain that `get_response` runs."""
        del is_async
        super().load_middleware(is_async=False)

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request; whoever hangs up before the answer gets none."""
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        loop = asyncio.get_running_loop()
        response = await loop.run_in_executor(self._lanes, self._answer, scope, body)
        if response.streaming:
            await self._stream(response, receive, send)
        else:
            await self.send_response(response, send)

    async def _stream(self, response: HttpResponseBase, receive: Any, send: Any) -> None:
        """Send parts, each made on a lane, until there are no more or nobody reads them."""
        parts: Any = response
        if not parts.is_async:
            parts.streaming_content = _on_lanes(parts.streaming_content)
        sending = asyncio.create_task(self.send_response(response, send))
        leaving = asyncio.create_task(receive())
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await sync_to_async(response.close, thread_sensitive=True)()

    def _answer(self, scope: Any, body: Any) -> HttpResponseBase:
        close_old_connections()
        reset_queries()
        set_script_prefix(get_script_prefix(scope))
        request_started.send(sender=type(self), scope=scope)
        try:
            with body:
                request, refusal = self.create_request(scope, body)
                answer = self.get_response(request) if request is not None else refusal
            response: Any = answer
            response._handler_class = type(self)
            if not response.streaming:
                response.close()
            return response  # type: ignore[no-any-return]
        finally:
            close_old_connections()


async def _on_lanes(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The same parts; Django would gather them all before the first is sent."""
    following = sync_to_async(lambda: next(parts, None), thread_sensitive=True)
    while (part := await following()) is not None:
        yield part


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
