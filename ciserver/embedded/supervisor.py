"""Starts programs in order, watches them, and ends with all of them gone."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from ciserver.embedded.process import (
    SIGNAL_GAP_S,
    Child,
    Program,
    adopt_orphans,
    descendants,
    reap,
)

STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: How often we look where nothing wakes us.
POLL_S: Final = 0.03


class Interrupted(Exception):
    """A signal told us to stop while something was being awaited."""


class Failed(Exception):
    """A program ended before it had become ready; the message shows the end of its log."""


class Supervisor:
    """Watches children from one thread. `tell` gets sentences for the person at the terminal.

    Use as a context manager: leaving it stops every child, in the reverse order of their start,
    and kills whatever descends from us still.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._children: list[Child] = []
        self._signals: list[int] = []
        self._wakeup: tuple[int, int] = (-1, -1)
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Supervisor:
        adopt_orphans()
        self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in (*STOPPING, signal.SIGCHLD):
            signal.signal(number, self._noted)
        self._selector.register(self._wakeup[0], selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        signal.set_wakeup_fd(-1)
        for number in (*STOPPING, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        for descriptor in self._wakeup:
            os.close(descriptor)

    def start(self, program: Program) -> Child:
        """Start a program and watch it from now on."""
        child = Child(program)
        self._children.append(child)
        child.start(time.monotonic())
        return child

    def wait_until(self, ready: Callable[[], bool], child: Child, limit_s: float) -> None:
        """Wait until `ready` says yes of a program just started.

        Raises: Failed if the program ends first or takes longer than `limit_s`; Interrupted.
        """
        end = time.monotonic() + limit_s
        while not ready():
            if not child.alive:
                raise Failed(_obituary(child))
            if time.monotonic() > end:
                raise Failed(f"{child.program.name} did not answer within {limit_s:.0f} s")
            self._pause(POLL_S)
            if self._asked_to_stop():
                raise Interrupted

    def run(self, program: Program) -> str:
        """Run a program to its end; what it wrote to its standard output.

        Raises: Failed with the last line it wrote to standard error; Interrupted.
        """
        process = subprocess.Popen(
            list(program.argv),
            env=dict(program.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate()
        finally:
            process.kill()
        if self._asked_to_stop():
            raise Interrupted
        if process.returncode:
            lines = errors.strip().splitlines() or [f"exit code {process.returncode}"]
            raise Failed(f"{program.name}: {lines[-1]}")
        return output

    def watch(self, until: Child | None = None) -> int:
        """Keep the programs running until a signal says stop, or `until` ends: its exit code."""
        while not self._asked_to_stop():
            if until is not None and not until.alive:
                return until.process.wait() if until.process else 1
            self._mend(until)
            self._pause(self._next_start())
        return 0

    def _mend(self, awaited: Child | None) -> None:
        now = time.monotonic()
        for child in self._children:
            if child is awaited:
                continue
            if child.process is not None and not child.alive:
                code = child.died(now)
                if child.program.keep:
                    self._tell(
                        f"{child.program.name} ended ({_how(code)}), starting it again{_see(child)}"
                    )
            if child.due is not None and child.due <= now:
                child.start(now)
        reap(self._children)

    def _next_start(self) -> float | None:
        planned = [child.due for child in self._children if child.due is not None]
        return max(0.0, min(planned) - time.monotonic()) if planned else None

    def _pause(self, limit_s: float | None) -> None:
        if self._selector.select(limit_s):
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup[0], 4096)

    def _noted(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _asked_to_stop(self) -> bool:
        return any(number in STOPPING for number in self._signals)

    def _stop(self) -> None:
        self._signals.clear()
        for child in reversed(self._children):
            if child.alive and not self._asked_to_stop():
                self._stop_one(child)
        for child in self._children:
            child.kill_group()
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for child in self._children:
            if child.process is not None:
                child.process.wait()

    def _stop_one(self, child: Child) -> None:
        """A further Ctrl-C ends the waiting: everything is killed then."""
        *first, last = child.program.stop_signals
        for number in first:
            child.send(number)
            self._wait_for_end(child, SIGNAL_GAP_S)
        child.send(last)
        self._wait_for_end(child, child.program.stop_s)

    def _wait_for_end(self, child: Child, limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while child.alive and time.monotonic() < end and not self._asked_to_stop():
            self._pause(POLL_S)


def _see(child: Child) -> str:
    return f"; see {child.program.log}" if child.program.log else ""


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _obituary(child: Child) -> str:
    program = child.program
    code = child.process.wait() if child.process else 1
    lines = list(_tail(program)) or ["it wrote nothing"]
    return f"{program.name} ended ({_how(code)}): {lines[-1]}"


def _tail(program: Program) -> Iterator[str]:
    if program.log is not None and program.log.exists():
        text = program.log.read_bytes()[-4096:].decode(errors="replace")
        yield from (line for line in text.splitlines() if line.strip())
