"""A shell's terminal, seen by one viewer at a time who may come, go and come back.

Bytes to the viewer go only as fast as he takes them: a window of them may be on its way, then the
shell's output stays where it is, and the program that writes it waits. While nobody looks, output
is read and only its end kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from agents.drivers.base import DriverError, Shell
from pipeline import wire
from pipeline.wire import SHELL_INPUT_BYTES, SHELL_WINDOW_BYTES

log = structlog.get_logger("agents.debug")

#: How much of the output a new viewer is shown again.
REPLAY_BYTES: Final = 64 * 1024

Open = Callable[[int, int], Shell]


class Viewer(Protocol):
    """Where output goes. Raises nothing: a viewer who is gone is let go of elsewhere."""

    def send(self, message: wire.Shell) -> None:
        """A word."""

    def send_bytes(self, data: bytes) -> None:
        """Output."""


class TooMuch(Exception):
    """More input came than the window allows."""


class Console:
    """The terminal. `open_shell` is called once, when the first viewer comes."""

    def __init__(
        self,
        open_shell: Open,
        on_typed: Callable[[], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._open_shell, self._on_typed, self._on_end = open_shell, on_typed, on_end
        self._changed = threading.Condition(threading.RLock())
        self._shell: Shell | None = None
        self._viewer: Viewer | None = None
        self._recent = bytearray()
        #: Bytes that are on their way to the viewer.
        self._shown = 0
        self._typed: deque[bytes] = deque()
        self._typed_bytes = 0
        self._closed = False
        #: The shell's exit code once it has ended by itself.
        self.exit_code = -1

    # --- the viewer's side ---

    def attach(self, viewer: Viewer, message: wire.Shell) -> None:
        """From now on it is his; he is shown what was there lately."""
        self._begin(message.cols, message.rows)
        with self._changed:
            self._viewer = viewer
            self._typed.clear()
            self._typed_bytes = 0
            self._shown = len(self._recent)
            viewer.send(wire.Shell("attached", text=message.text))
            if self._recent:
                viewer.send_bytes(bytes(self._recent))
            self._changed.notify_all()

    def detach(self) -> None:
        """Nobody looks."""
        with self._changed:
            self._viewer = None
            self._changed.notify_all()

    def resize(self, cols: int, rows: int) -> None:
        """The viewer's window has another size."""
        if self._shell is not None and 0 < cols < 1000 and 0 < rows < 1000:
            self._shell.resize(cols, rows)

    def took(self, count: int) -> None:
        """So many bytes have been shown to the viewer."""
        with self._changed:
            self._shown = max(0, self._shown - max(0, count))
            self._changed.notify_all()

    def type(self, data: bytes) -> None:
        """Input. Raises: TooMuch."""
        self._on_typed()
        with self._changed:
            self._typed_bytes += len(data)
            if self._typed_bytes > 2 * SHELL_INPUT_BYTES:
                raise TooMuch("more input than the window allows")
            self._typed.append(data)
            self._changed.notify_all()

    # --- the shell's side ---

    def _begin(self, cols: int, rows: int) -> None:
        if self._shell is not None:
            self.resize(cols, rows)
            return
        try:
            shell = self._open_shell(cols or 80, rows or 24)
        except DriverError as fault:
            log.warning("shell.not-opened", reason=str(fault))
            self._keep(f"[ci] there can be no shell: {fault}\r\n".encode())
            return
        with self._changed:
            if self._closed:
                shell.end()
                return
            self._shell = shell
            for task in (self._show, self._feed):
                threading.Thread(
                    target=task, args=(shell,), name=f"shell{task.__name__}", daemon=True
                ).start()

    def _show(self, shell: Shell) -> None:
        """Output, to its end."""
        while data := shell.read():
            with self._changed:
                while not self._has_room(len(data)):
                    self._changed.wait()
                self._keep(data)
                if self._viewer is not None:
                    self._shown += len(data)
                    self._viewer.send_bytes(data)
        if not self._closed:
            self.exit_code = shell.end()
            self._on_end("the shell was left")

    def _has_room(self, size: int) -> bool:
        fits = self._shown + size <= SHELL_WINDOW_BYTES
        return self._closed or self._viewer is None or fits

    def _keep(self, data: bytes) -> None:
        self._recent += data
        del self._recent[:-REPLAY_BYTES]

    def _feed(self, shell: Shell) -> None:
        """Input, as the shell takes it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._typed or self._closed)
                if self._closed:
                    return
                data, viewer = self._typed.popleft(), self._viewer
            try:
                shell.write(data)
            except OSError as fault:
                log.debug("shell.not-written", reason=str(fault))
                return
            with self._changed:
                self._typed_bytes = max(0, self._typed_bytes - len(data))
                if viewer is not None and viewer is self._viewer:
                    viewer.send(wire.Shell("took", bytes=len(data)))

    def close(self) -> None:
        """End the shell."""
        with self._changed:
            self._closed, self._viewer = True, None
            self._changed.notify_all()
            shell = self._shell
        if shell is not None:
            shell.end()
