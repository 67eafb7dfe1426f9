"""What the terminal shows: lines that stay, and one line of progress that does not."""

from __future__ import annotations

import shutil
import sys
import threading
from typing import TextIO

CLEAR_LINE = "\r\x1b[K"


class Refused(Exception):
    """Something a person has to mend, in one sentence."""


class Terminal:
    """Writes whole lines, from any thread. Control codes are used on a terminal only."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._progress = ""
        self._lock = threading.Lock()
        self.tty = self._stream.isatty()

    def line(self, text: str = "") -> None:
        """A line that stays."""
        with self._lock:
            self._erase()
            self._stream.write(text + "\n")
            self._draw()
            self._stream.flush()

    def progress(self, text: str) -> None:
        """What is being awaited; shown on a terminal until something else is. Empty: nothing."""
        with self._lock:
            self._erase()
            self._progress = text
            self._draw()
            self._stream.flush()

    def paint(self, text: str, code: str) -> str:
        """`text` in a colour (an SGR code such as 32) on a terminal, else as it is."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.tty else text

    def _erase(self) -> None:
        if self.tty and self._progress:
            self._stream.write(CLEAR_LINE)

    def _draw(self) -> None:
        if self.tty and self._progress:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(self._progress[:width])
