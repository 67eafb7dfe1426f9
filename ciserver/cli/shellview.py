"""A kept step's shell in this terminal: raw keys there, bytes back, the terminal as it was."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from ciserver.cli.client import Access
from ciserver.cli.terminal import Refused
from pipeline.wire import SHELL_INPUT_BYTES

_KEYS_BYTES: Final = 4096
_CLEAR: Final = b"\x1b[H\x1b[2J"
_AGAIN_S: Final = 1.0
#: How long a server that is away is tried.
_PATIENCE_S: Final = 120.0
#: Codes with which the server closes for good.
_FINAL: Final = (4401, 4403, 4404, 4409, 4413)
_LEFT: Final = 0
_LOST: Final = 2


class Escape:
    """Finds Enter, `~`, `.` in what is typed, as ssh does; `~~` is one `~`."""

    def __init__(self) -> None:
        self._fresh, self._tilde = True, False

    def feed(self, keys: bytes) -> tuple[bytes, bool]:
        """What of the keys is for the shell, and whether to leave."""
        out = bytearray()
        for key in keys:
            if self._tilde:
                self._tilde = False
                if key == ord("."):
                    return bytes(out), True
                if key != ord("~"):
                    out.append(ord("~"))
            elif self._fresh and key == ord("~"):
                self._tilde = True
                continue
            out.append(key)
            self._fresh = key in b"\r\n"
        return bytes(out), False


class View:
    """One visit, over as many connections as it takes."""

    def __init__(self, reach: Access, step: int, where: str, *, force: bool) -> None:
        self._reach, self._step, self._where, self._force = reach, step, where, force
        self._socket: ClientConnection | None = None
        self._attached = self._seen = False
        self._code: int | None = None
        self._why = ""
        self._keys: asyncio.Queue[bytes] = asyncio.Queue(maxsize=64)
        self._room = asyncio.Condition()
        #: Bytes typed that have not reached the shell.
        self._under_way = 0

    async def run(self) -> int:
        """Show the shell until it ends or one leaves; the exit code.

        Raises: Refused where the server does not let one in.
        """
        with _raw(sys.stdin.fileno()):
            self._write(f"[ci] {self._where}; Enter ~ . leaves, exit ends debugging\r\n")
            code = await self._visit()
        self._write(f"[ci] {self._why}\r\n" if self._why else "")
        return code

    async def _visit(self) -> int:
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), self._read_keys)
        loop.add_signal_handler(signal.SIGWINCH, self._resized)
        tasks = [asyncio.create_task(self._type()), asyncio.create_task(self._stay())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            loop.remove_reader(sys.stdin.fileno())
            loop.remove_signal_handler(signal.SIGWINCH)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- the server's side ---

    async def _stay(self) -> int:
        """Be connected until there is an end."""
        clock = asyncio.get_running_loop().time
        since = clock()
        while self._code is None:
            try:
                await self._connection()
                since = clock()
            except (OSError, WebSocketException) as fault:
                self._attached = False
                if clock() - since > _PATIENCE_S:
                    self._why = f"the server does not come back: {fault}"
                    return _LOST
            if self._code is None:
                await asyncio.sleep(_AGAIN_S)
        return self._code

    async def _connection(self) -> None:
        cols, rows = os.get_terminal_size(sys.stdout.fileno())
        force = "&force=1" if self._force else ""
        address = self._reach.socket(f"/ws/shell/{self._step}?cols={cols}&rows={rows}{force}")
        async with connect(
            address, additional_headers=self._reach.headers, proxy=None, compression=None
        ) as socket:
            self._socket = socket
            try:
                async for frame in socket:
                    await self._take(socket, frame)
            finally:
                self._socket, self._attached = None, False
                self._closed(socket.close_code, socket.close_reason or "")

    def _closed(self, code: int | None, reason: str) -> None:
        if code in _FINAL:
            raise Refused(reason or "the server does not let you use this shell")
        if code == 1000 and self._code is None:
            self._code, self._why = _LEFT, reason

    async def _take(self, socket: ClientConnection, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            await asyncio.to_thread(_put, frame)
            await self._say(socket, "took", bytes=len(frame))
            return
        word = json.loads(frame)
        if word["kind"] == "attached":
            _put(_CLEAR if self._seen else b"")
            self._seen, self._attached, self._why = True, True, ""
            await self._arrived(None)
        elif word["kind"] == "took":
            await self._arrived(word["bytes"])
        elif word["kind"] == "waiting":
            self._attached, self._why = False, word["text"]
            self._write(f"\r\n[ci] {word['text']}\r\n")
        elif word["kind"] == "ended":
            self._why = word["text"]
            self._code = word["code"] if word.get("code", -1) >= 0 else _LEFT

    async def _arrived(self, count: int | None) -> None:
        """Input has reached the shell; None: there is none under way."""
        async with self._room:
            self._under_way = 0 if count is None else max(0, self._under_way - count)
            self._room.notify_all()

    async def _say(self, socket: ClientConnection, kind: str, **more: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            await socket.send(json.dumps({"kind": kind, **more}))

    # --- the keyboard's side ---

    def _read_keys(self) -> None:
        self._keys.put_nowait(os.read(sys.stdin.fileno(), _KEYS_BYTES))
        if self._keys.full():  # what comes now stays in the terminal
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())

    async def _type(self) -> int:
        """Send keys until one wants to leave."""
        escape = Escape()
        loop = asyncio.get_running_loop()
        while keys := await self._keys.get():
            loop.add_reader(sys.stdin.fileno(), self._read_keys)
            out, leave = escape.feed(keys)
            if out:
                await self._send(out)
            if leave:
                self._why = "left; the step is kept until nobody types for a while"
                return _LEFT
        return _LEFT

    async def _send(self, data: bytes) -> None:
        async with self._room:
            await self._room.wait_for(
                lambda: self._attached and self._under_way + len(data) <= SHELL_INPUT_BYTES
            )
            self._under_way += len(data)
        if self._socket is not None:
            with contextlib.suppress(ConnectionClosed):
                await self._socket.send(data)

    def _resized(self) -> None:
        socket = self._socket
        if socket is not None:
            cols, rows = os.get_terminal_size(sys.stdout.fileno())
            task = asyncio.ensure_future(self._say(socket, "resize", cols=cols, rows=rows))
            task.add_done_callback(lambda done: done.exception())

    def _write(self, text: str) -> None:
        _put(text.encode())


def _put(data: bytes) -> None:
    """Write all of it to the terminal, however slow that is."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@contextlib.contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Every key as it is; afterwards the terminal is as it was."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
