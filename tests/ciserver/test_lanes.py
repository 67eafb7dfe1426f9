"""Which requests go through middleware, and what a bare one answers."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator

from ciserver.lanes import BareHandler, ByPrefix


def scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"ci.example.com")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
        "http_version": "1.1",
    }


async def answer(application: Any, path: str) -> tuple[int, dict[bytes, bytes], bytes]:
    talk = ApplicationCommunicator(application, scope(path))
    await talk.send_input({"type": "http.request", "body": b"", "more_body": False})
    start = await talk.receive_output(timeout=30)
    body = await talk.receive_output(timeout=30)
    await talk.wait(timeout=30)
    return start["status"], dict(start["headers"]), body["body"]


@pytest.mark.django_db(transaction=True)
def test_the_agent_protocol_needs_no_middleware() -> None:
    status, headers, body = async_to_sync(answer)(BareHandler(), "/agent/v1/nothing")
    assert status == 404
    assert b"the agent protocol has no /agent/v1/nothing" in body
    assert b"Content-Security-Policy" not in headers


def test_requests_are_told_apart_by_their_path() -> None:
    def named(name: str) -> Any:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.append((name, scope["path"]))

        return application

    seen: list[tuple[str, str]] = []
    both = ByPrefix("/agent/v1/", named("inside"), named("outside"))
    for path in ("/agent/v1/claims", "/agent", "/"):
        async_to_sync(both.__call__)(scope(path), None, None)
    assert seen == [("inside", "/agent/v1/claims"), ("outside", "/agent"), ("outside", "/")]
