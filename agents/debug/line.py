"""The connection of a kept step to the server: one websocket, opened from here and kept open.

Frames are `pipeline.wire.Shell` and bytes. The library is imported when a step is kept: an agent
that never keeps one does not pay for it.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from agents.debug.console import Console, TooMuch
from agents.debug.hold import Hold
from agents.link import Gate, proxy_of, tls_context, wait_s
from agents.options import Options
from pipeline import wire
from pipeline.spec import from_json, to_json
from pipeline.wire import PREFIX, SHELL_FRAME_BYTES

log = structlog.get_logger("agents.debug")

_PING_S: Final = 20.0
_CLOSE_S: Final = 2.0
_LONGEST_WAIT_S: Final = 15.0
#: A server that does not know the lease, or what a shell is, is not asked again so soon.
_REFUSED_WAIT_S: Final = 30.0
_NORMAL: Final = 1000


class Line:
    """Connects until closed. A viewer for the console as long as the connection stands."""

    def __init__(
        self, options: Options, gate: Gate, path: str, hold: Hold, console: Console
    ) -> None:
        self._options, self._gate = options, gate
        self._hold, self._console = hold, console
        self._address = "ws" + options.server.rstrip("/").removeprefix("http") + PREFIX + path
        self._closed = threading.Event()
        self._socket: Any = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="shell-line", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, reason: str, code: int) -> None:
        """Tell the viewer, if there is one, that and why it is over."""
        self._closed.set()
        self.send(wire.Shell("ended", text=reason, code=code))
        with self._lock:
            socket = self._socket
        if socket is not None:
            socket.close(_NORMAL)
        self._thread.join()

    # --- as a viewer ---

    def send(self, message: wire.Shell) -> None:
        """Send a word, if there is a connection."""
        self._send(json.dumps(to_json(message), separators=(",", ":")))

    def send_bytes(self, data: bytes) -> None:
        """Send output, if there is a connection."""
        for start in range(0, len(data), SHELL_FRAME_BYTES):
            self._send(data[start : start + SHELL_FRAME_BYTES])

    def _send(self, data: str | bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        with self._lock:
            socket = self._socket
        if socket is None:
            return
        try:
            socket.send(data)
        except (ConnectionClosed, OSError) as fault:
            log.debug("shell.line-lost", reason=str(fault))

    # --- the thread ---

    def _run(self) -> None:
        from websockets.exceptions import InvalidStatus, WebSocketException

        attempt = 0
        while not self._closed.is_set():
            attempt += 1
            longest_s = _LONGEST_WAIT_S
            try:
                self._connect()
                attempt = 0
            except InvalidStatus as fault:
                longest_s = _REFUSED_WAIT_S
                log.warning("shell.refused", status=fault.response.status_code)
            except (WebSocketException, OSError, TooMuch) as fault:
                log.info("shell.line-lost", reason=str(fault))
            if not self._closed.is_set():
                self._closed.wait(wait_s(max(attempt, 1), longest_s, longest_s, random.random()))  # noqa: S311 - no secret

    def _connect(self) -> None:
        from websockets.sync.client import connect

        secure = self._address.startswith("wss:")
        with connect(
            self._address,
            additional_headers={"Authorization": f"Bearer {self._gate.token}"},
            proxy=proxy_of(self._options, urlsplit(self._options.server)),
            ping_interval=_PING_S,
            ping_timeout=_PING_S,
            close_timeout=_CLOSE_S,
            compression=None,
            ssl=tls_context(self._options) if secure else None,
        ) as socket:
            with self._lock:
                self._socket = socket
            try:
                for frame in socket:
                    self._take(frame)
            finally:
                with self._lock:
                    self._socket = None
                self._console.detach()

    def _take(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            self._console.type(frame)
            return
        message = _read(frame)
        acts: Mapping[str, Any] = {
            "attach": lambda: self._console.attach(self, message),
            "detach": self._console.detach,
            "resize": lambda: self._console.resize(message.cols, message.rows),
            "took": lambda: self._console.took(message.bytes),
            "end": lambda: self._hold.end(message.text or "somebody ended it"),
        }
        if message.kind in acts:
            acts[message.kind]()


def _read(text: str) -> wire.Shell:
    try:
        return from_json(wire.Shell, json.loads(text))
    except ValueError as fault:
        log.warning("shell.not-understood", reason=str(fault))
        return wire.Shell("")
