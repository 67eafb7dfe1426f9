"""Clients of ASGI applications for tests: a websocket, and a request whose answer may stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator

DEADLINE_S = 60
Headers = Sequence[tuple[bytes, bytes]]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario to its end, and what it left running to its own.

    As long as this loop runs, database calls are made by this thread, hence in its transaction.
    """

    async def whole() -> None:
        await scenario()
        while left := asyncio.all_tasks() - {asyncio.current_task()}:
            _, late = await asyncio.wait(left, timeout=DEADLINE_S)
            assert not late, late

    async_to_sync(whole)()


def _scope(kind: str, target: str, headers: Headers) -> dict[str, Any]:
    path, _, query = target.partition("?")
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": list(headers),
        "http_version": "1.1",
        "client": ["127.0.0.1", 1],
        "server": ["testserver", 80],
    }


class Socket:
    """An open websocket."""

    def __init__(self, application: Any, target: str, headers: Headers) -> None:
        scope = {**_scope("websocket", target, headers), "subprotocols": []}
        self.line = ApplicationCommunicator(application, scope)

    async def receive(self) -> Any:
        """The next JSON frame."""
        message = await self.line.receive_output(timeout=DEADLINE_S)
        assert message["type"] == "websocket.send", message
        return json.loads(message["text"])

    async def send(self, text: str) -> None:
        await self.line.send_input({"type": "websocket.receive", "text": text})

    async def closed(self) -> int:
        """The code the server closes with."""
        message = await self.line.receive_output(timeout=DEADLINE_S)
        assert message["type"] == "websocket.close", message
        return int(message["code"])


@contextlib.asynccontextmanager
async def socket(application: Any, target: str, headers: Headers = ()) -> AsyncIterator[Socket]:
    """Open a websocket that must be accepted; the client leaves at the end."""
    opened = Socket(application, target, headers)
    await opened.line.send_input({"type": "websocket.connect"})
    message = await opened.line.receive_output(timeout=DEADLINE_S)
    assert message["type"] == "websocket.accept", message
    yield opened
    await opened.line.send_input({"type": "websocket.disconnect", "code": 1005})
    await opened.line.wait(timeout=DEADLINE_S)


class Answer:
    """An answer being received."""

    def __init__(self, application: Any, scope: dict[str, Any]) -> None:
        self.line = ApplicationCommunicator(application, scope)
        self.status = 0
        self.headers: dict[str, str] = {}

    async def part(self) -> bytes:
        """The next part of the body; empty at the end."""
        message = await self.line.receive_output(timeout=DEADLINE_S)
        return bytes(message.get("body", b""))

    async def event(self) -> Any:
        """The data of the next server-sent event, pings left out; None for the final one."""
        while True:
            text = (await self.part()).decode()
            if text.startswith("event: error"):
                return None
            if text.startswith("data: "):
                return json.loads(text.removeprefix("data: "))


@contextlib.asynccontextmanager
async def request(
    application: Any, method: str, target: str, body: bytes = b"", headers: Headers = ()
) -> AsyncIterator[Answer]:
    """Send a request and wait for the answer's head; the client leaves at the end."""
    answer = Answer(application, {**_scope("http", target, headers), "method": method})
    await answer.line.send_input({"type": "http.request", "body": body})
    head = await answer.line.receive_output(timeout=DEADLINE_S)
    answer.status = head["status"]
    answer.headers = {key.decode(): value.decode() for key, value in head["headers"]}
    yield answer
    await answer.line.send_input({"type": "http.disconnect"})
    await answer.line.wait(timeout=DEADLINE_S)
