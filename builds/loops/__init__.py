"""The server worker's loops. One process leads by a database lease and runs them as threads."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable
from typing import Final

import structlog
from django.db import DatabaseError, close_old_connections, connections

from builds import clock, logs
from builds.loops import delivery, leader, reconciler, retention

log = structlog.get_logger(__name__)

COMPACTION_S: Final = 10.0
LEADER_S: Final = 10.0
#: Name, one round, and the pause between rounds.
LOOPS: Final[tuple[tuple[str, Callable[[], object], Callable[[], float]], ...]] = (
    ("reconciler", reconciler.run_once, clock.pulse_s),
    ("delivery", delivery.run_once, lambda: delivery.INTERVAL_S),
    ("compaction", logs.compact_due, lambda: COMPACTION_S),
    ("retention", retention.run_once, lambda: retention.INTERVAL_S),
)


def run_forever(stop: threading.Event) -> None:
    """Run every loop whenever this process leads, until `stop` is set."""
    holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    leads = threading.Event()
    threads = [
        threading.Thread(target=_repeat, args=(name, once, pause, leads, stop), name=name)
        for name, once, pause in LOOPS
    ]
    for thread in threads:
        thread.start()
    _lead(holder, leads, stop)
    for thread in threads:
        thread.join()
    _guarded("leader", lambda: leader.resign(holder))
    connections.close_all()


def _lead(holder: str, leads: threading.Event, stop: threading.Event) -> None:
    """Stand for leader again and again; without an answer this process does not lead."""
    while True:
        if _guarded("leader", lambda: leader.acquire(holder)):
            leads.set()
        else:
            leads.clear()
        if stop.wait(LEADER_S):
            return


def _repeat(
    name: str,
    once: Callable[[], object],
    pause: Callable[[], float],
    leads: threading.Event,
    stop: threading.Event,
) -> None:
    while not stop.is_set():
        if leads.is_set():
            _guarded(name, once)
            stop.wait(pause())
        else:
            stop.wait(1.0)
    connections.close_all()


def _guarded(name: str, once: Callable[[], object]) -> object:
    """The result of one round; what fails is logged, gives None, and is tried again in the next."""
    try:
        close_old_connections()
        return once()
    except DatabaseError as fault:
        log.warning("loop.no_database", loop=name, error=str(fault))
    except Exception:
        log.exception("loop.failed", loop=name)
    return None
