"""A page and a probe on a port of the agent's own, off unless asked for: what runs here now.

Source: drone-runner-docker's `/healthz` and `/` (reference: agents, section 5).
"""

from __future__ import annotations

import base64
import collections
import hmac
import html
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import structlog

from agents.options import Options
from pipeline.spec import StageSpec

log = structlog.get_logger("agents.status")

#: How many stages the page shows. Source: Drone's runner.
SHOWN: Final = 25
_RUNNING: Final = "running"


@dataclass(frozen=True, slots=True)
class Note:
    """A stage that runs or ran here. Times are unix seconds by this host's clock."""

    repo: str
    build: int
    stage: int
    name: str
    type: str
    status: str
    started: float
    stopped: float = 0.0


class Board:
    """The stages of late, newest first. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[str, Note] = {}
        self._ended: collections.deque[Note] = collections.deque(maxlen=SHOWN)

    def begin(self, lease: str, spec: StageSpec) -> None:
        """A stage starts."""
        started = self._clock()
        note = Note(spec.repo, spec.build, spec.stage, spec.name, spec.type, _RUNNING, started)
        with self._lock:
            self._running[lease] = note

    def end(self, lease: str, status: str) -> None:
        """A stage has ended; one that never began here is no news."""
        with self._lock:
            note = self._running.pop(lease, None)
            if note is not None:
                self._ended.appendleft(replace(note, status=status, stopped=self._clock()))

    def notes(self) -> list[Note]:
        """Running stages, then ended ones."""
        with self._lock:
            return [*reversed(self._running.values()), *self._ended][:SHOWN]


class StatusServer:
    """Serves until closed. `about` gives name, state and the like for the page's head."""

    def __init__(
        self, options: Options, board: Board, about: Callable[[], Mapping[str, str]]
    ) -> None:
        host, _, port = options.http_bind.rpartition(":")
        handler = type("Handler", (_Handler,), {"options": options, "board": board, "about": about})
        self._server = ThreadingHTTPServer((host.strip("[]"), int(port)), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.5,), name="status", daemon=True
        )
        self._thread.start()
        log.info("status.listening", address=self.address)

    @property
    def address(self) -> str:
        """Host and port it listens on."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    options: Options
    board: Board
    about: Callable[[], Mapping[str, str]]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._answer(200, "text/plain", b"OK\n")
        elif path != "/" or not self.options.ui_password:
            self._answer(404, "text/plain", b"not found\n")
        elif not self._is_known():
            realm = self.options.ui_realm.replace('"', "'")
            more = {"WWW-Authenticate": f'Basic realm="{realm}", charset="UTF-8"'}
            self._answer(401, "text/plain", b"who are you?\n", more)
        else:
            self._answer_page()

    def _is_known(self) -> bool:
        given = self.headers.get("Authorization", "").partition(" ")[2]
        wanted = f"{self.options.ui_username}:{self.options.ui_password}".encode()
        return hmac.compare_digest(given.encode(), base64.b64encode(wanted))

    def _answer_page(self) -> None:
        about, notes = type(self).about(), self.board.notes()
        if "application/json" in self.headers.get("Accept", ""):
            data = {"agent": dict(about), "stages": [asdict(note) for note in notes]}
            self._answer(200, "application/json", json.dumps(data).encode())
        else:
            self._answer(200, "text/html; charset=utf-8", page(about, notes).encode())

    def _answer(
        self, status: int, kind: str, body: bytes, more: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), **(more or {})}
        for name, value in {**headers, "Content-Security-Policy": "default-src 'none'"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds; nobody wants to read of them."""


def page(about: Mapping[str, str], notes: list[Note]) -> str:
    """The page as HTML."""
    head = "".join(f"<li>{html.escape(key)}: {html.escape(text)}" for key, text in about.items())
    rows = "".join(_row(note) for note in notes) or "<tr><td colspan=5>nothing yet"
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>agent</title>"
        f"<h1>Agent</h1><ul>{head}</ul><h2>Stages</h2><table>"
        "<tr><th>Repository<th>Build<th>Stage<th>Status<th>Seconds"
        f"{rows}</table></html>"
    )


def _row(note: Note) -> str:
    seconds = f"{note.stopped - note.started:.0f}" if note.stopped else ""
    cells = (note.repo, str(note.build), f"{note.stage} {note.name}", note.status, seconds)
    return "<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in cells)
