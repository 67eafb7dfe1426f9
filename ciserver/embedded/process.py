"""A child process that is watched: started, seen to die, started again, stopped."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
BACKOFF_S: Final = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
#: A process that ran this long is well again: its next death starts the waits anew.
HEALTHY_S: Final = 60.0
SIGNAL_GAP_S: Final = 0.5

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `stop_signals` are sent `SIGNAL_GAP_S` apart, and SIGKILL `stop_s` later."""

    name: str
    argv: Sequence[str]
    environ: Mapping[str, str]
    log: Path | None = None
    descriptors: Sequence[int] = ()
    stop_signals: Sequence[signal.Signals] = (signal.SIGTERM,)
    stop_s: float = 10.0
    #: Whether its death is mended by starting it again.
    keep: bool = True


@dataclass(slots=True)
class Child:
    """One program and the process that runs it now, if any does."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    #: When to start it again, by the monotonic clock; None: not planned.
    due: float | None = field(default=None)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, now: float) -> None:
        """Run the program in a session of its own, so that a terminal's Ctrl-C reaches only us."""
        self.due = None
        self.started = now
        self.process = _spawn(self.program)

    def died(self, now: float) -> int:
        """Note that the process ended, plan its next start; its exit code."""
        code = self.process.wait() if self.process else 0
        self.kill_group()
        self.process = None
        self.deaths = 1 if now - self.started > HEALTHY_S else self.deaths + 1
        if self.program.keep:
            self.due = now + BACKOFF_S[min(self.deaths, len(BACKOFF_S)) - 1]
        return code

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it runs."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill_group(self) -> None:
        """Kill whatever is left of the process and its group."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def _spawn(program: Program) -> subprocess.Popen[bytes]:
    # a preexec_fn is safe here: the supervisor has one thread
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(program.log.open("ab")) if program.log else None
        return subprocess.Popen(
            list(program.argv),
            env=dict(program.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            pass_fds=program.descriptors,
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid()),
        )


def _die_with_parent(parent: int) -> Callable[[], None]:
    """What a child does before it becomes its program: it asks to be killed when we are gone."""

    def ask() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that none can be lost."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(known: Sequence[Child]) -> None:
    """Take the exit codes of adopted processes; those of `known` children are left to them."""
    ours = {child.process.pid for child in known if child.process is not None}
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in ours:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(ended.si_pid, os.WNOHANG)


def descendants(pid: int) -> list[int]:
    """Every living process below `pid`."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = _children(waiting.pop())
        found += children
        waiting += children
    return found


def _children(pid: int) -> list[int]:
    numbers: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            numbers += map(int, file.read_text().split())
    return numbers
