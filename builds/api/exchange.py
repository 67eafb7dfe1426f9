"""One HTTP request and its answer, as ASGI gives them, for handlers that wait."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any, Final

MAX_BODY_BYTES: Final = 1024 * 1024


class Refusal(Exception):
    """An error answer."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class Exchange:
    """Reads the request, writes the answer, and knows when the client has gone."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        self.begun = False
        self._receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None

    @property
    def method(self) -> str:
        return str(self.scope.get("method", ""))

    @property
    def path(self) -> str:
        return str(self.scope.get("path", ""))

    def header(self, name: str) -> str:
        """A header's value, or empty."""
        wanted = name.lower().encode()
        for key, value in self.scope["headers"]:
            if key == wanted:
                return str(value.decode("latin1"))
        return ""

    async def body(self) -> bytes:
        """The whole body. Raises: Refusal where it is too large."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "the request was not finished", "request:cut")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MAX_BODY_BYTES:
                raise Refusal(413, "the request is too large", "request:too-large")
            if not message.get("more_body"):
                return b"".join(parts)

    def gone(self) -> asyncio.Task[None]:
        """A task that ends when the client leaves; after the body was read."""
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        return self._watcher

    async def json(self, data: Any, status: int, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON."""
        body = json.dumps(data, separators=(",", ":")).encode()
        all_headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        await self.start(status, {**all_headers, **(headers or {})})
        await self.write(body, more=False)

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status line and headers."""
        self.begun = True
        pairs = [(key.lower().encode(), value.encode("latin1")) for key, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def write(self, data: bytes, more: bool = True) -> None:
        """Send a part of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def close(self) -> None:
        """Stop watching the client."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
