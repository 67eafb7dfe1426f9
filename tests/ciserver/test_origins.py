from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ciserver.origins import SameOrigin


async def accepting(_scope: Any, _receive: Any, send: Any) -> None:
    """A websocket that lets everyone in."""
    await send({"type": "websocket.accept"})


def opens(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a websocket with these headers is accepted."""
    sent: list[dict[str, Any]] = []
    coming = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]

    async def receive() -> dict[str, Any]:
        return coming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    application = SameOrigin(accepting, "https://ci.example.com")
    scope = {"type": "websocket", "path": "/ws/build/1", "headers": headers}
    asyncio.run(application(scope, receive, send))
    return sent[0]["type"] == "websocket.accept"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ([], True),
        ([(b"origin", b"https://ci.example.com")], True),
        ([(b"origin", b"http://127.0.0.1:8000"), (b"host", b"127.0.0.1:8000")], True),
        ([(b"origin", b"https://evil.example.com"), (b"host", b"127.0.0.1:8000")], False),
        ([(b"origin", b"http://127.0.0.1:9000"), (b"host", b"127.0.0.1:8000")], False),
        ([(b"origin", b"null"), (b"host", b"127.0.0.1:8000")], False),
    ],
    ids=["a program", "public address", "same host", "another host", "another port", "no page"],
)
def test_only_own_pages_and_programs_open_websockets(
    headers: list[tuple[bytes, bytes]], allowed: bool
) -> None:
    assert opens(headers) is allowed
