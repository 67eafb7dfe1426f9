"""Find and end what steps leave running on the host, and nothing else.

While the agent lives it is its descendants' subreaper: an orphan of a step becomes a child of the
agent's main thread. After the agent's death, orphans are told by the mark in their environment and
by the process groups on record.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: The variable that marks every process of a stage.
MARK: Final = "CISERVER_STAGE"
_PR_SET_CHILD_SUBREAPER: Final = 36
#: How long killed processes are waited for before they are left to themselves.
_PATIENCE_S: Final = 5.0
#: How long a process without an environment may be in the middle of an exec.
_EXEC_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Group:
    """A process group on record: the leader's pid and start time, so that a reused pid is told."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What /proc tells of a process; `started` is in clock ticks since boot."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def look(pid: int) -> Seen | None:
    """What is known of a process, or None if there is none."""
    try:
        words = _read(f"/proc/{pid}/stat").rpartition(b")")[2].decode().split()
    except OSError:
        return None
    return Seen(pid, words[0], int(words[1]), int(words[2]), int(words[3]), int(words[19]))


def put_on_record(path: Path, pid: int) -> None:
    """Add the group that `pid` leads to a record."""
    seen = look(pid)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, f"{pid} {seen.started if seen else 0}\n".encode())
    finally:
        os.close(file)


def on_record(path: Path) -> list[Group]:
    """The groups of a record, oldest first; a line torn by a sudden death is left out."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [Group(*map(int, line.split())) for line in lines]


def kill_group(group: Group) -> bool:
    """Kill a group on record, if its leader is still the process that was recorded."""
    seen = look(group.pid)
    if seen is None or not group.started or seen.started != group.started:
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group.pid, signal.SIGKILL)
        return True
    return False


def end_adopted(key: str, leaders: Collection[int]) -> None:
    """Kill this process's adopted children that bear `key` or belong to a group of `leaders`.

    Repeats until there is none, as their own children are adopted in turn, and reaps the dead. The
    leaders themselves are their driver's to end and to wait for.
    """
    now = time.monotonic()
    deadline, unclear_until = now + _PATIENCE_S, now + _EXEC_S
    while time.monotonic() < deadline:
        adopted = {seen: environ(seen.pid) for seen in _adopted() if seen.pid not in leaders}
        mine = [
            seen
            for seen, variables in adopted.items()
            if seen.group in leaders or seen.session in leaders or _mark(key) in variables
        ]
        if not mine:
            # one that shows no environment may be in the middle of an exec
            if all(adopted.values()) or time.monotonic() > unclear_until:
                return
            time.sleep(0.001)
        for seen in mine:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(seen.pid, signal.SIGKILL)
        for seen in mine:
            _reap(seen.pid)


def end_marked(key: str) -> int:
    """Kill every process of the host that bears `key`; returns how many there were."""
    ended: set[int] = set()
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        found = [pid for pid in _all() if is_marked(pid, key)]
        if not found:
            break
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        ended.update(found)
        time.sleep(0.01)  # they die in their own time
    return len(ended)


def is_marked(pid: int, key: str) -> bool:
    """Whether the process was started for the stage `key`."""
    return _mark(key) in environ(pid)


def environ(pid: int) -> list[bytes]:
    """The variables that a process was started with; none if it has ended or is being started."""
    try:
        return [entry for entry in _read(f"/proc/{pid}/environ").split(b"\0") if entry]
    except OSError:
        return []


def _mark(key: str) -> bytes:
    return f"{MARK}={key}".encode()


def _adopted() -> Iterator[Seen]:
    """Adopted children that live; dead ones are reaped on the way.

    The kernel gives orphans to the main thread, which itself starts no steps. A child that leads
    its own session or shares ours may be somebody's who will wait for it.
    """
    me = os.getpid()
    try:
        pids = _read(f"/proc/{me}/task/{me}/children").decode().split()
    except OSError:  # a kernel without lists of children
        pids = [str(pid) for pid in _all() if (seen := look(pid)) and seen.parent == me]
    for pid in pids:
        seen = look(int(pid))
        if seen is None:
            continue
        if seen.state == "Z" and seen.session not in (seen.pid, os.getsid(0)):
            _reap(seen.pid)
        elif seen.state != "Z":
            yield seen


def _read(path: str) -> bytes:
    """A file of /proc, whole: Python's own files would ask and seek first, several times a step."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while data := os.read(file, 65536):
            pieces.append(data)
        return b"".join(pieces)
    finally:
        os.close(file)


def _reap(pid: int) -> None:
    """Wait a little for a child that was killed."""
    deadline = time.monotonic() + _PATIENCE_S
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.001)


def _all() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
