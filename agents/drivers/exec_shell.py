"""A shell on a pseudo terminal of this host."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import select
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from agents.cache.place import rights
from agents.drivers.base import INTERACTIVE, SHELL_READ_BYTES, DriverError, shell_environ

#: How often a thread that waits for the terminal looks whether it has been let go of.
_LOOK_MS: Final = 500
_END_S: Final = 5.0
#: How long a shell that has closed its terminal may take to end by itself.
_ENDING_S: Final = 0.2
#: The leader of a session gets the terminal that it opens first.
_BEGIN: Final = f'exec 0<>"$0" 1>&0 2>&1\n{INTERACTIVE}'


class ExecShell:
    """A shell as some user in some folder. Its processes belong to the session of `pid`."""

    def __init__(
        self,
        environ: Mapping[str, str],
        folder: Path,
        user: pwd.struct_passwd | None,
        cols: int,
        rows: int,
    ) -> None:
        """Start it. Raises: DriverError."""
        self._lock = threading.Lock()
        self._ending = threading.Lock()
        self._ended = False
        self._users = 0
        self._terminal, self._other = os.openpty()
        try:
            os.set_blocking(self._terminal, False)
            if user is not None:
                os.fchown(self._other, user.pw_uid, user.pw_gid)
            self.resize(cols, rows)
            self._child: subprocess.Popen[bytes] = subprocess.Popen(
                ["/bin/sh", "-c", _BEGIN, os.ttyname(self._other)],
                cwd=folder,
                env=shell_environ(environ),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                **rights(user),
            )
            self._over = os.pidfd_open(self._child.pid)
        except OSError as fault:
            os.close(self._other)
            os.close(self._terminal)
            raise DriverError(f"cannot start a shell: {fault}") from fault

    @property
    def pid(self) -> int:
        """The leader of the shell's session."""
        return self._child.pid

    def read(self) -> bytes:
        """The next output; empty at the end."""
        with self._using() as there:
            while there and not self._ended:
                ready = self._ready(select.POLLIN)
                if self._terminal in ready:
                    with contextlib.suppress(BlockingIOError):
                        return os.read(self._terminal, SHELL_READ_BYTES)
                elif self._over in ready:
                    return b""
        return b""

    def write(self, data: bytes) -> None:
        """Type. Raises: OSError at the end."""
        left = memoryview(data)
        with self._using() as there:
            while left and there and not self._ended:
                ready = self._ready(select.POLLOUT)
                if self._over in ready:
                    raise BrokenPipeError("the shell has ended")
                if self._terminal in ready:
                    with contextlib.suppress(BlockingIOError):
                        left = left[os.write(self._terminal, left) :]

    def resize(self, cols: int, rows: int) -> None:
        """Another size of the terminal."""
        size = struct.pack("HHHH", rows, cols, 0, 0)
        with self._using() as there, contextlib.suppress(OSError):
            if there:
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def end(self) -> int:
        """Kill the shell and what it has in its session; its exit code."""
        with self._ending:
            if not self._ended:
                with self._using():
                    self._kill()
                    self._ended = True
        code = self._child.returncode
        return 128 - code if code < 0 else code

    def _kill(self) -> None:
        """HUP for what runs in the foreground, as when a terminal goes away; KILL for the shell."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(_ENDING_S)
        with contextlib.suppress(OSError):
            group = os.tcgetpgrp(self._terminal)
            if group > 1 and group != os.getpgrp():
                os.killpg(group, signal.SIGHUP)
        if self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait(_END_S)

    def _ready(self, event: int) -> set[int]:
        poll = select.poll()
        poll.register(self._terminal, event)
        poll.register(self._over, select.POLLIN)
        return {file for file, _ in poll.poll(_LOOK_MS)}

    @contextlib.contextmanager
    def _using(self) -> Iterator[bool]:
        """Keep the files open meanwhile: another thread may end it. False where it has ended."""
        with self._lock:
            there = not self._ended
            self._users += there
        try:
            yield there
        finally:
            if there:
                self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._ended and not self._users:
                for file in (self._terminal, self._other, self._over):
                    os.close(file)
