from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agents.spot import SpotWatch
from tests.services import wait_for


class Metadata:
    """An instance metadata service that is told what to say."""

    def __init__(self) -> None:
        self.notice: bytes | None = None
        self.asked = 0
        self.tokens: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                self._answer(200, b"a-token")

            def do_GET(self) -> None:
                outer.asked += 1
                outer.tokens.append(self.headers.get("X-aws-ec2-metadata-token", ""))
                found = outer.notice
                self._answer(404 if found is None else 200, found or b"")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    service = Metadata()
    yield service
    service.close()


def test_a_notice_is_told_once(metadata: Metadata) -> None:
    told: list[str] = []
    watch = SpotWatch(metadata.url, told.append, poll_s=0.01)
    wait_for("it asks", lambda: metadata.asked > 2)
    assert told == []

    metadata.notice = b'{"action": "terminate", "time": "2026-11-26T08:22:00Z"}'
    wait_for("it tells", lambda: bool(told))
    watch.close()

    assert told == ["terminate at 2026-11-26T08:22:00Z"]
    assert set(metadata.tokens) == {"a-token"}


def test_a_notice_it_cannot_read_is_one_all_the_same(metadata: Metadata) -> None:
    metadata.notice = b"soon"
    told: list[str] = []

    watch = SpotWatch(metadata.url, told.append, poll_s=0.01)
    wait_for("it tells", lambda: bool(told))
    watch.close()

    assert told == ["an interruption"]


def test_a_machine_without_metadata_is_left_in_peace() -> None:
    told: list[str] = []
    watch = SpotWatch("http://127.0.0.1:1", told.append, poll_s=0.01)

    watch.close()

    assert told == []
