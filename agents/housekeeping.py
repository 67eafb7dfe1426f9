"""Keeps the agent's directories within bounds: git mirrors, and rooms that nobody uses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from agents import mirrors
from agents.drivers.exec import sweep
from agents.options import Options

#: Packing a large mirror takes longer, and need not be waited for.
PATIENCE_S: Final = 10.0
#: A room younger than this may be in the making.
ROOM_S: Final = 60.0

log = structlog.get_logger("agents.housekeeping")


class Housekeeper:
    """Does its tasks when it is made and then at intervals, until closed."""

    def __init__(self, interval_s: float, tasks: Sequence[Callable[[], object]]) -> None:
        self._interval_s, self._tasks = interval_s, tasks
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; a task under way is waited for a little."""
        self._closed.set()
        self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        while not self._closed.is_set():
            for task in self._tasks:
                _do(task)
            self._closed.wait(self._interval_s)


def _do(task: Callable[[], object]) -> None:
    try:
        task()
    except Exception:
        log.exception("housekeeping.failed")


def tidy(options: Options, now: Callable[[], float] = time.time) -> None:
    """Remove rooms that no agent holds, and mirrors as the options say."""
    sweep(options.work_dir, older_than=now() - ROOM_S)
    mirrors.clean(
        mirrors.folder(options.work_dir),
        age_s=options.mirror_age,
        size_bytes=options.mirror_size,
        now=now(),
    )
    mirrors.pack(mirrors.folder(options.work_dir))
