"""Removes what stages leave, behind their backs: a slot need not wait for directories to go."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger("agents.janitor")

#: With so much waiting, whoever brings more does it himself.
_WAITING: Final = 16


class Janitor:
    """One thread, started by the first task. Safe for threads."""

    def __init__(self) -> None:
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue(_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def do(self, task: Callable[[], None]) -> None:
        """Have a task done soon; now and here if there is too much to do, or after `close`."""
        with self._lock:
            taken = not self._closed and self._take(task)
        if not taken:
            _do(task)

    def close(self) -> None:
        """Return when all that was brought is done; idempotent."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            self._tasks.put(None)
            thread.join()

    def _take(self, task: Callable[[], None]) -> bool:
        try:
            self._tasks.put_nowait(task)
        except queue.Full:
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="janitor", daemon=True)
            self._thread.start()
        return True

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            _do(task)


def _do(task: Callable[[], None]) -> None:
    try:
        task()
    except Exception:
        log.exception("janitor.failed")
