"""Somebody at the shell of a kept step, over a real websocket, for tests."""

from __future__ import annotations

import contextlib
import json
import time
from types import TracebackType
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ciserver.cli.client import Access
from tests.services import DEADLINE_S


class Viewer:
    """Reads what comes and says that it took it, unless it is `lazy`."""

    def __init__(self, access: Access, step: int, *, query: str = "", lazy: bool = False) -> None:
        address = access.socket(f"/ws/shell/{step}?cols=80&rows=24{query}")
        self.socket = connect(
            address, additional_headers=access.headers, proxy=None, compression=None, legacy=True
        )
        self.lazy = lazy
        self.words: list[dict[str, Any]] = []
        self.output = b""
        self.received = 0
        self.closed: tuple[int, str] | None = None

    def __enter__(self) -> Viewer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def say(self, kind: str, **more: Any) -> None:
        """Send a word; the server may have closed meanwhile."""
        with contextlib.suppress(ConnectionClosed):
            self.socket.send(json.dumps({"kind": kind, **more}))

    def type(self, text: str) -> None:
        """Type."""
        self.socket.send(text.encode())

    def read(self, timeout_s: float) -> bool:
        """Take one frame in; whether there was one."""
        try:
            frame = self.socket.recv(timeout=timeout_s)
        except TimeoutError:
            return False
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            self.closed = (code, closed.rcvd.reason if closed.rcvd else "")
            return False
        if isinstance(frame, bytes):
            self.received += len(frame)
            self.output = (self.output + frame)[-200_000:]
            if not self.lazy:
                self.say("took", bytes=len(frame))
        else:
            self.words.append(json.loads(frame))
            if self.words[-1]["kind"] == "attached":
                self.output = b""
        return True

    def until(self, text: str) -> None:
        """Read until this was shown."""
        self._wait(text, lambda: text.encode() in self.output)

    def until_word(self, kind: str) -> dict[str, Any]:
        """Read until the server says this; all of it."""
        self._wait(kind, lambda: any(word["kind"] == kind for word in self.words))
        return next(word for word in reversed(self.words) if word["kind"] == kind)

    def until_closed(self) -> tuple[int, str]:
        """Read until the server closes the socket; its code and why."""
        end = time.monotonic() + DEADLINE_S
        while self.closed is None:
            assert time.monotonic() < end, (self.words, self.output)
            self.read(0.5)
        return self.closed

    def _wait(self, what: str, ready: Any) -> None:
        end = time.monotonic() + DEADLINE_S
        while not ready():
            assert time.monotonic() < end, f"{what!r} never came: {self.words} {self.output!r}"
            assert self.closed is None or ready(), (what, self.closed, self.words, self.output)
            self.read(0.5)
