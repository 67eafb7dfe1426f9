"""Packed test reports on their way: in memory, and in the lease's folder for a later life."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger("agents.undelivered")

_NAME: Final = "reports.{}.zst"


class Undelivered:
    """A lease's test reports that the server does not have, by the number of their step.

    Safe for threads. Without a folder they are as mortal as the agent.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._waiting: dict[int, bytes] = {}

    @classmethod
    def left_in(cls, folder: Path) -> Undelivered:
        """What an earlier life left in a lease's folder."""
        found = cls(folder)
        for path in sorted(folder.glob(_NAME.format("*"))):
            found._waiting[int(path.name.split(".")[1])] = path.read_bytes()
        return found

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, number: int, body: bytes) -> None:
        """Keep a step's reports until `done`; they are on the disk, if there is room."""
        if self._folder is not None:
            try:
                _write(self._path(number), body)
            except OSError as fault:
                log.warning("results.not-kept", step=number, reason=str(fault))
        with self._lock:
            self._waiting[number] = body

    def first(self) -> tuple[int, bytes] | None:
        """Reports to deliver; None if there are none."""
        with self._lock:
            return next(iter(self._waiting.items()), None)

    def done(self, number: int) -> None:
        """The server has these, or will never take them."""
        with self._lock:
            self._waiting.pop(number, None)
        if self._folder is not None:
            self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        assert self._folder is not None  # noqa: S101 - asked by the callers
        return self._folder / _NAME.format(number)


def _write(path: Path, body: bytes) -> None:
    """A file that is whole or not there."""
    new = path.with_suffix(".new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(body)
    new.replace(path)
