"""Which requests go through middleware, and what a bare one answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.db import connections
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from ciserver.lanes import BareHandler, ByPrefix, executor


@pytest.fixture
def lanes() -> Iterator[Executor]:
    with executor(1) as threads:
        yield threads
        threads.submit(connections.close_all).result()


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
def test_the_agent_protocol_needs_no_middleware(lanes: Executor) -> None:
    status, headers, body = async_to_sync(answer)(BareHandler(lanes), "/agent/v1/nothing")
    assert status == 404
    assert b"the agent protocol has no /agent/v1/nothing" in body
    assert b"Content-Security-Policy" not in headers


@pytest.mark.django_db(transaction=True)
def test_who_hangs_up_in_the_middle_of_its_request_gets_no_answer(lanes: Executor) -> None:
    async def hang_up() -> bool:
        talk = ApplicationCommunicator(
            BareHandler(lanes), scope("/agent/v1/claims") | {"method": "POST"}
        )
        await talk.send_input({"type": "http.request", "body": b"{", "more_body": True})
        await talk.send_input({"type": "http.disconnect"})
        await talk.wait(timeout=30)
        return await talk.receive_nothing()

    assert async_to_sync(hang_up)()


class Download(BareHandler):
    """Answers every request with the same download; notes when that is closed."""

    def __init__(self, lanes: Executor, parts: Iterator[bytes]) -> None:
        super().__init__(lanes)
        self._parts, self.closed = parts, False

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        """The download."""
        response = StreamingHttpResponse(self._parts)
        response._resource_closers.append(self._close)  # type: ignore[attr-defined]
        return response

    def _close(self) -> None:
        self.closed = True


def test_who_hangs_up_in_the_middle_of_a_download_ends_it(lanes: Executor) -> None:
    """And its parts are made one by one: this one has no end."""

    async def hang_up() -> None:
        talk = ApplicationCommunicator(handler, scope("/"))
        await talk.send_input({"type": "http.request", "body": b"", "more_body": False})
        assert (await talk.receive_output(timeout=30))["status"] == 200
        assert (await talk.receive_output(timeout=30))["body"] == b"part"
        await talk.send_input({"type": "http.disconnect"})
        await talk.wait(timeout=30)

    handler = Download(lanes, itertools.repeat(b"part"))
    async_to_sync(hang_up)()
    assert handler.closed


def test_a_download_is_sent_whole(lanes: Executor) -> None:
    async def download() -> list[bytes]:
        talk = ApplicationCommunicator(handler, scope("/"))
        await talk.send_input({"type": "http.request", "body": b"", "more_body": False})
        await talk.receive_output(timeout=30)
        parts = [await talk.receive_output(timeout=30) for _ in range(3)]
        await talk.wait(timeout=30)
        return [part.get("body", b"") for part in parts]

    handler = Download(lanes, iter([b"one", b"two"]))
    assert async_to_sync(download)() == [b"one", b"two", b""]
    assert handler.closed


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
