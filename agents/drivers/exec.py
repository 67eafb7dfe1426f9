"""Steps as processes of this host: `/bin/sh -e` on a script, in a session of their own.

Each step leads a process group, remembered on disk before its output is read. The agent is its
descendants' subreaper: what a step leaves behind becomes the agent's child, is told by the variable
`CISERVER_STAGE` in its environment, and is killed when the stage ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import math
import os
import pwd
import re
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from agents import host, results, rooms
from agents.cache import shim
from agents.cache.box import FolderBox, make_folder
from agents.cache.desk import Desk, Served
from agents.cache.place import HostPlace, rights
from agents.drivers import leftovers
from agents.drivers.base import DriverError, Outcome, Process, Room, Sink
from agents.drivers.exec_shell import ExecShell
from agents.options import Options
from pipeline.scripts import posix
from pipeline.spec import StageSpec, StepSpec

log = structlog.get_logger("agents.exec")

#: Between TERM and KILL.
GRACE_S: Final = 5.0
#: The file in a room's root that names its process groups.
_RECORD: Final = "groups"
_TOOLS: Final = "tools"
_PIPE_BYTES: Final = 1024 * 1024
#: A step that prints without pause is read in steps of this length, so that chunks are big.
_GATHER_S: Final = 0.002
_SMALL_BYTES: Final = 128 * 1024


#: The head of every script: what waits for a word that does not come has nobody to run for.
_GATE: Final = "read -r _ && exec </dev/null || exit 137\n"


class ExecDriver:
    """Runs exec stages."""

    def __init__(self, options: Options, *, grace_s: float = GRACE_S) -> None:
        self._options, self._grace_s = options, grace_s
        self._desk = Desk(options)
        leftovers.adopt_orphans()

    def check(self) -> None:
        """Raises: DriverError if there is no shell, or no such user to run steps as."""
        if not Path("/bin/sh").exists():
            raise DriverError("exec stages need /bin/sh, which this host has not")
        if self._options.exec_user:
            open_way(self._options, account(self._options.exec_user))

    def sweep(self) -> None:
        """Kill what an earlier life of the agent ran and remove its rooms."""
        sweep(self._options.work_dir)

    def furnish(self, room: Room) -> None:
        """Install the first step's tools. Raises: OSError, DriverError."""
        (room.root / _RECORD).touch(mode=0o600)
        _install_tools(room.root / _TOOLS / "1", self._account())

    def open(self, spec: StageSpec, room: Room) -> ExecSession:
        """Set up the room. Raises: DriverError."""
        user = self._account()
        netrc = spec.netrc if not self._options.netrc_clone_only else None
        if netrc is not None:
            path = room.home / ".netrc"
            path.touch(mode=0o600)
            text = f"machine {netrc.machine} login {netrc.login} password {netrc.password}\n"
            path.write_text(text)
        return ExecSession(spec, room, user, self._desk, self._grace_s)

    def _account(self) -> pwd.struct_passwd | None:
        return account(self._options.exec_user) if self._options.exec_user else None


def _install_tools(tools: Path, user: pwd.struct_passwd | None) -> None:
    """Put programs that ask the agent, and the box they ask through, into a folder of a room."""
    shim.install(tools / "bin", str(tools / "box"))
    make_folder(tools / "box", user)


def sweep(work_dir: Path, older_than: float = math.inf) -> None:
    """Remove rooms that no agent holds any more, with what still runs in them."""
    for path in rooms.leftovers(work_dir, older_than):
        for group in leftovers.on_record(path / _RECORD):
            leftovers.kill_group(group)
        leftovers.end_marked(path.name)
        shutil.rmtree(path, onerror=_make_writable)
        log.info("room.swept", room=path.name)


def account(name: str) -> pwd.struct_passwd:
    """The account steps run as. Raises: DriverError if it is unknown or we may not become it."""
    try:
        return host.account(name)
    except ValueError as fault:
        raise DriverError(str(fault)) from None


def open_way(options: Options, user: pwd.struct_passwd) -> None:
    """Let another user through to the rooms, and no further. Raises: DriverError if that fails."""
    if os.geteuid() == user.pw_uid:
        return
    work_dir = options.work_dir.absolute()
    work_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    for path in (work_dir, *work_dir.parents):
        if path in (work_dir, options.state_dir.absolute()):
            path.chmod(path.stat().st_mode | 0o011)
        if not path.stat().st_mode & 0o001 and path.stat().st_uid != user.pw_uid:
            raise DriverError(
                f"steps cannot run as {user.pw_name}, who may not enter {path}; "
                "choose a work-dir that every user can reach"
            )


class ExecSession:
    """One stage's processes."""

    def __init__(
        self,
        spec: StageSpec,
        room: Room,
        user: pwd.struct_passwd | None,
        desk: Desk,
        grace_s: float,
    ) -> None:
        self._spec, self._room, self._user = spec, room, user
        self._desk, self._grace_s = desk, grace_s
        self._processes: list[ExecProcess] = []
        self._shells: list[ExecShell] = []
        self._ahead: dict[int, _Waiting] = {}
        self._owned = False
        self._count = itertools.count(1)

    def prepare(self, step: StepSpec, environ: Mapping[str, str], *, at_once: bool = False) -> None:
        """Start the step's shell, which waits for its word, where that will come in a moment."""
        if not at_once:
            return
        try:
            self._ahead[step.number] = self._begin(step, environ)
        except (OSError, ValueError) as fault:  # `start` meets it again, and tells
            log.debug("exec.not-prepared", step=step.name, reason=str(fault))

    def start(self, step: StepSpec, environ: Mapping[str, str], sink: Sink) -> Process:
        """Let the step's script run. Raises: DriverError."""
        try:
            waiting = self._begun_ahead(step, environ) or self._begin(step, environ)
        except OSError as fault:
            raise DriverError(f"cannot start the step: {fault}") from fault
        process = ExecProcess(waiting.child, sink, self._grace_s)
        self._processes.append(process)
        waiting.go()
        counter = self._desk.open(self._spec, waiting.box, self._place, self._room.tools)
        return Served(process, self._desk, counter)

    def _begin(self, step: StepSpec, environ: Mapping[str, str]) -> _Waiting:
        """Start a shell on the step's script that does nothing yet. Raises: OSError."""
        script = self._write_script(step)
        if self._user is not None and not self._owned:
            self._give_room(self._user)
        tools = self._room.root / _TOOLS / str(next(self._count))
        if not tools.exists():
            _install_tools(tools, self._user)
        command = ["/bin/sh", "-e", str(script)]
        settings = self._environ(environ, str(tools / "bin"))
        child = spawn(
            command, settings, self._room.source, stdin=subprocess.PIPE, **rights(self._user)
        )
        leftovers.put_on_record(self._room.root / _RECORD, child.pid)
        return _Waiting(child, FolderBox(tools / "box"), dict(environ))

    def _begun_ahead(self, step: StepSpec, environ: Mapping[str, str]) -> _Waiting | None:
        """The shell that waits for this step, if it has the right environment."""
        waiting = self._ahead.pop(step.number, None)
        if waiting is None or waiting.environ == environ:
            return waiting
        waiting.end()
        return None

    def _place(self, cwd: str, stopped: Callable[[], bool]) -> HostPlace:
        return HostPlace(cwd, self._user, stopped)

    def collect(self, step: StepSpec) -> Iterator[tuple[str, bytes]]:
        """Read the step's reports in the checkout."""
        return results.on_disk(self._room.source, results.clean(step.reports))

    def shell(self, step: StepSpec, environ: Mapping[str, str], cols: int, rows: int) -> ExecShell:
        """Open a shell in the workspace, as the steps' user. Raises: DriverError."""
        settings = self._environ(environ, "")
        shell = ExecShell(settings, self._room.source, self._user, cols, rows)
        leftovers.put_on_record(self._room.root / _RECORD, shell.pid)
        self._shells.append(shell)
        return shell

    def close(self) -> None:
        """Kill the steps' groups and whatever they left behind."""
        while self._ahead:
            self._ahead.popitem()[1].end()
        for process in self._processes:
            process.end()
        for shell in self._shells:
            shell.end()
        leaders = {process.pid for process in self._processes}
        leaders |= {shell.pid for shell in self._shells}
        leftovers.end_adopted(self._room.key, leaders)
        for process in self._processes:
            process.release()

    def remove(self) -> None:
        """Remove the room."""
        self.close()
        shutil.rmtree(self._room.root, onerror=_make_writable)

    def _write_script(self, step: StepSpec) -> Path:
        path = self._room.scripts / str(step.number)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o700)
        with os.fdopen(file, "w") as stream:
            stream.write(_GATE + posix(step.commands, netrc=False))
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)
        return path

    def _environ(self, environ: Mapping[str, str], tools: str) -> dict[str, str]:
        own = {name: os.environ[name] for name in ("PATH", "USER") if name in os.environ}
        if self._user is not None:
            own["USER"] = self._user.pw_name
        source = str(self._room.source)
        return {
            **own,
            "HOME": str(self._room.home),
            "SHELL": "/bin/sh",
            **environ,
            "PATH": ":".join(filter(None, (_expand(environ.get("PATH", "$PATH"), own), tools))),
            "DRONE_HOME": source,
            "DRONE_WORKSPACE": source,
            leftovers.MARK: self._room.key,
        }

    def _give_room(self, user: pwd.struct_passwd) -> None:
        """The checkout is there: all but the root, with its record, becomes the other user's."""
        self._room.root.chmod(0o711)
        for folder, _, files in itertools.chain.from_iterable(
            map(os.walk, (self._room.home.parent, self._room.source.parent, self._room.scripts))
        ):
            for path in (folder, *(os.path.join(folder, name) for name in files)):  # noqa: PTH118 - bytes of speed
                os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
        self._owned = True


def _expand(text: str, own: Mapping[str, str]) -> str:
    """Host variables in a step's PATH. Source: drone-runner-exec."""
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda found: own.get(found[1] or found[2], ""), text)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A step's shell before its first command."""

    child: subprocess.Popen[bytes]
    box: FolderBox
    environ: Mapping[str, str]

    def go(self) -> None:
        """Let it run."""
        assert self.child.stdin is not None  # noqa: S101 - a pipe was asked for
        with self.child.stdin, contextlib.suppress(BrokenPipeError):  # it was killed
            self.child.stdin.write(b"\n")

    def end(self) -> None:
        """It is not wanted."""
        self.child.kill()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                pipe.close()
        self.child.wait()


def spawn(
    command: list[str],
    environ: Mapping[str, str],
    folder: Path,
    *,
    stdin: int = subprocess.DEVNULL,
    **more: object,
) -> subprocess.Popen[bytes]:
    """Start a program that leads its own session, its output and errors in one pipe."""
    child: subprocess.Popen[bytes] = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environ),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        bufsize=0,
        **more,  # type: ignore[call-overload]
    )
    if child.stdout is not None:
        with contextlib.suppress(OSError):  # the limit for users may be lower
            fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return child


class ExecProcess:
    """A running child in its own process group."""

    def __init__(
        self, child: subprocess.Popen[bytes], sink: Sink, grace_s: float = GRACE_S
    ) -> None:
        self._child, self._sink, self._grace_s = child, sink, grace_s
        self._killer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._ended = False
        self._drain: threading.Thread | None = None

    def wait(self) -> Outcome:
        """Copy the output until the child has ended, then what is left in the pipe."""
        closed = self._copy_until_end()
        code = self._child.wait()
        with self._lock:
            self._ended = True
            if self._killer is not None:
                self._killer.cancel()
        if closed:
            self._close_pipe()
        else:
            drain = threading.Thread(target=self._discard, daemon=True)
            drain.start()
            self._drain = drain
        return Outcome(code if code >= 0 else 128 - code)

    def kill(self) -> None:
        """TERM to the group now, KILL after the grace."""
        with self._lock:
            if self._ended or self._killer is not None:
                return
            self._signal(signal.SIGTERM)
            self._killer = threading.Timer(self._grace_s, self._kill_hard)
            self._killer.daemon = True
            self._killer.start()

    @property
    def pid(self) -> int:
        """The leader of the step's group and session."""
        return self._child.pid

    def end(self) -> None:
        """Kill the group without grace, if its leader still runs, and wait until it does not."""
        self._kill_hard()
        with contextlib.suppress(ChildProcessError):  # it was waited for already
            os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)

    def release(self) -> None:
        """Wait for the end of what the step left in the pipe: its writers have been killed."""
        if self._drain is not None:
            self._drain.join(self._grace_s)

    def _kill_hard(self) -> None:
        with self._lock:
            if not self._ended:
                self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # the child is not reaped before `_ended` is set, so its pid is still its own
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)

    def _copy_until_end(self) -> bool:
        """Copy output to the sink; False if somebody else still holds the pipe."""
        pipe = self._child.stdout.fileno() if self._child.stdout else -1
        os.set_blocking(pipe, False)
        ended = os.pidfd_open(self._child.pid)
        try:
            poll = select.poll()
            poll.register(pipe, select.POLLIN)
            poll.register(ended, select.POLLIN)
            while True:
                ready = {file for file, _ in poll.poll()}
                if pipe in ready and not self._copy(pipe, rest=False):
                    return True
                if ended in ready:
                    return not self._copy(pipe, rest=True)
        finally:
            os.close(ended)

    def _copy(self, pipe: int, *, rest: bool) -> bool:
        """Move what is in the pipe now (once, or until it is empty); False at its end."""
        while True:
            try:
                data = os.read(pipe, _PIPE_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._sink.write(data)
            if not rest:
                if len(data) > 4096:
                    time.sleep(_GATHER_S if len(data) < _SMALL_BYTES else 0)
                return True

    def _discard(self) -> None:
        """Read on for processes the step left behind: nothing may block or break them."""
        pipe = self._child.stdout.fileno() if self._child.stdout else -1
        os.set_blocking(pipe, True)
        while os.read(pipe, _PIPE_BYTES):
            pass
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self._child.stdout is not None:
            self._child.stdout.close()


def _make_writable(function: Callable[[str], object], path: str, _: object) -> None:
    """A step may leave directories it has made read-only."""
    with contextlib.suppress(OSError):
        Path(path).parent.chmod(0o700)
        Path(path).chmod(0o700)
        function(path)
