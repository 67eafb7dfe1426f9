"""Where a step's files are: on this host, reached with the step's rights and no more."""

from __future__ import annotations

import collections
import contextlib
import os
import pwd
import select
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any, Final, Protocol

from agents.cache.archive import PIECE_BYTES, Stopped
from agents.cache.backends.base import CacheError

#: A file whose checksum is wanted is read up to this size.
MAX_FILE_BYTES: Final = 256 * 1024 * 1024
_BLOCKS: Final = "512"  # of 512 bytes: fewer, bigger writes
_TOLD_CHARS: Final = 2000
#: Where the programs of the agent's host are looked for.
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOOK_MS: Final = 500


class Place(Protocol):
    """The files a step sees. Paths are the step's: absolute, or from where it asked."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory."""

    def read(self, path: str) -> Iterator[bytes] | None:
        """A file's content; None if there is none."""

    def pack(self, path: str) -> Iterator[bytes]:
        """A tree as a tar stream, its names beginning with `path`. Raises: CacheError."""

    def unpack(self, pieces: Iterable[bytes]) -> None:
        """Write a tar stream's files where their names say. Raises: CacheError."""


class HostPlace:
    """A directory of this host. All is done by programs that run as the step's user."""

    def __init__(
        self,
        cwd: str,
        user: pwd.struct_passwd | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._cwd, self._stopped = cwd, stopped
        self._rights = rights(user)

    def exists(self, path: str) -> bool:
        """Ask the shell."""
        with self._run("/bin/sh", "-c", '[ -e "$1" ]', "sh", self._whole(path)) as child:
            return child.wait() == 0

    def read(self, path: str) -> Iterator[bytes] | None:
        """What `cat` prints."""
        whole = self._whole(path)
        with self._run("/bin/sh", "-c", '[ -f "$1" ] && [ -r "$1" ]', "sh", whole) as child:
            if child.wait():
                return None
        return self._output("cat", "--", whole)

    def pack(self, path: str) -> Iterator[bytes]:
        """What `tar` writes."""
        where = ("-C", self._cwd)
        return self._output("tar", "-c", "-P", "-b", _BLOCKS, "-f", "-", *where, "--", path)

    def unpack(self, pieces: Iterable[bytes]) -> None:
        """Feed `tar`."""
        left = iter(pieces)
        with tempfile.TemporaryFile() as told:
            more: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": told, "bufsize": 0}
            where = ("-C", self._cwd)
            with self._run("tar", "-x", "-P", "-b", _BLOCKS, "-f", "-", *where, **more) as child:
                assert child.stdin is not None  # noqa: S101 - asked for
                try:
                    with contextlib.suppress(BrokenPipeError):  # the reason is told by tar
                        for piece in left:
                            _write(child.stdin.fileno(), piece)
                except BaseException:
                    child.kill()
                    raise
                finally:
                    child.stdin.close()
                if child.wait():
                    raise CacheError(f"tar cannot unpack: {_tail(told)}")
        # tar may leave at the mark of the end; the checksum is behind it
        collections.deque(left, maxlen=0)

    def _output(self, *command: str) -> Iterator[bytes]:
        with tempfile.TemporaryFile() as told:
            more: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": told}
            with self._run(*command, **more) as child:
                assert child.stdout is not None  # noqa: S101 - asked for
                try:
                    while piece := self._read(child.stdout.fileno()):
                        yield piece
                except BaseException:
                    child.kill()
                    raise
                # GNU tar: 1 says that files changed while they were read
                if child.wait() > (1 if command[0] == "tar" else 0):
                    raise CacheError(f"{command[0]} cannot read: {_tail(told)}")

    def _read(self, pipe: int) -> bytes:
        """What is in the pipe, unless the step ends before anything comes. Raises: Stopped."""
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        while not poll.poll(_LOOK_MS):
            if self._stopped():
                raise Stopped("the step has ended")
        return os.read(pipe, PIECE_BYTES)

    def _run(self, *command: str, **more: Any) -> subprocess.Popen[bytes]:
        """Start a program. Its folder is `/`: entering the step's needs the step's rights."""
        streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **more}
        environ = {"PATH": _PATH, "LC_ALL": "C"}
        try:
            return subprocess.Popen(
                command, cwd="/", env=environ, pipesize=PIECE_BYTES, **streams, **self._rights
            )
        except OSError as fault:
            raise CacheError(f"cannot run {command[0]} on the agent's host: {fault}") from fault

    def _whole(self, path: str) -> str:
        return str(PurePosixPath(self._cwd) / path)


def rights(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Arguments of Popen that make a child somebody else's, where that is not who we are."""
    if user is None or os.geteuid() == user.pw_uid:
        return {}
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": groups}


def _write(pipe: int, data: bytes) -> None:
    """Write all of it, without a copy in between."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(pipe, rest) :]


def _tail(told: IO[bytes]) -> str:
    told.seek(0)
    return told.read().decode(errors="replace").strip()[-_TOLD_CHARS:]
