"""What runs for one step: its log, its process, its limits."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from agents.drivers.base import Process
from agents.logs.spool import Spool


@dataclass(slots=True)
class Job:
    """What runs for one step: its log, its process once there is one, its limits."""

    spool: Spool
    process: Process | None = None
    thread: threading.Thread | None = None
    killed: bool = False
    deadline: float | None = None
    timed_out: bool = False
    again_at: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def kill(self) -> None:
        """Kill the process, or the one that is about to be started."""
        with self.lock:
            self.killed = True
            if self.process is not None:
                self.process.kill()
        self.spool.give_up()

    def attach(self, process: Process) -> None:
        """The process has been started."""
        with self.lock:
            self.process = process
            if self.killed:
                process.kill()
