"""Objects of git repositories on this disk, read from a `git cat-file` that stays for a while.

A trigger reads a commit and a file. Starting git for that takes longer than everything else that a
trigger does, so the program is kept until nobody has asked it for `IDLE_S`. It resolves a name anew
each time it is asked: refs that moved and objects that were packed meanwhile are seen.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from builds.forges.base import Unreachable

#: An object as git has it: sha, type, content.
Object = tuple[str, str, bytes]

IDLE_S: Final = 20.0
#: Programs kept at a time, one per repository.
_MOST: Final = 8
_CHUNK: Final = 256 * 1024


class _Ended(Exception):
    """The program is gone."""


class Shelf:
    """Running programs by the folder they read. Any thread may ask."""

    def __init__(self, environ: Callable[[], Mapping[str, str]], idle_s: float = IDLE_S) -> None:
        self._environ, self._idle_s = environ, idle_s
        self._readers: dict[Path, _Reader] = {}
        self._lock = threading.Lock()
        self._watch: threading.Thread | None = None

    def read(self, folder: Path, names: tuple[str, ...], timeout_s: float) -> list[Object | None]:
        """The objects of these names, None where there is none.

        Raises: Unreachable if this is no repository or git takes too long.
        """
        for last in (False, True):
            reader = self._reader(folder)
            try:
                return reader.ask(names, timeout_s)
            except _Ended as fault:
                self._drop(folder, reader)
                if last:
                    raise Unreachable(f"cannot read {folder}: {str(fault)[:300]}") from fault
            except Unreachable:
                self._drop(folder, reader)
                raise
        raise AssertionError

    def close(self) -> None:
        """End every program."""
        with self._lock:
            readers, self._readers = list(self._readers.values()), {}
        for reader in readers:
            reader.end()

    def _reader(self, folder: Path) -> _Reader:
        surplus: list[_Reader] = []
        try:
            with self._lock:
                found = self._readers.pop(folder, None)
                if found is not None and not found.is_current():
                    surplus.append(found)
                    found = None
                self._readers[folder] = found = found or _Reader(folder, self._environ())
                while len(self._readers) > _MOST:
                    surplus.append(self._readers.pop(next(iter(self._readers))))
                if self._watch is None:
                    self._watch = threading.Thread(target=self._tidy, name="git", daemon=True)
                    self._watch.start()
                return found
        finally:
            for reader in surplus:
                reader.end()

    def _drop(self, folder: Path, reader: _Reader) -> None:
        with self._lock:
            if self._readers.get(folder) is reader:
                del self._readers[folder]
        reader.end()

    def _tidy(self) -> None:
        """End programs that nobody has asked for a while; the thread ends with the last of them."""
        going = True
        while going:
            time.sleep(self._idle_s / 2)
            old = time.monotonic() - self._idle_s
            with self._lock:
                idle = [path for path, reader in self._readers.items() if reader.used < old]
                readers = [self._readers.pop(path) for path in idle]
                going = bool(self._readers)
                if not going:
                    self._watch = None
            for reader in readers:
                reader.end()


class _Reader:
    """One `git cat-file --batch`."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder, self._identity = folder, _identity(folder)
        self._lock = threading.Lock()
        self._rest = b""
        self.used = time.monotonic()
        # a file, since nobody reads it while all goes well, and a pipe would fill up
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the program
        try:
            self._process = subprocess.Popen(
                ["git", "-C", str(folder), "-c", "safe.directory=*", "cat-file", "--batch"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                env=dict(environ),
                bufsize=0,
            )
        except FileNotFoundError as fault:
            self._complaints.close()
            raise Unreachable("the program git is not installed on the server") from fault

    def is_current(self) -> bool:
        """Whether its folder is still the one it has opened."""
        return self._identity == _identity(self._folder)

    def ask(self, names: tuple[str, ...], timeout_s: float) -> list[Object | None]:
        """Raises: _Ended, Unreachable."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
            try:
                self._process.stdin.write("\n".join([*names, ""]).encode())
            except (OSError, ValueError):
                self._process.kill()
                raise _Ended(self._complaint()) from None
            found = [self._object(deadline) for _ in names]
            self.used = time.monotonic()
            return found

    def end(self) -> None:
        """End the program; whoever waits for an answer gets _Ended."""
        self._process.kill()
        with self._lock:
            for stream in (self._process.stdin, self._process.stdout, self._complaints):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            self._process.wait()

    def _object(self, deadline: float) -> Object | None:
        header = self._until_newline(deadline)
        words = header.split(b" ")
        if len(words) != 3 or not words[2].isdigit():
            return None
        content = self._exactly(int(words[2]) + 1, deadline)
        return words[0].decode(), words[1].decode(), content[:-1]

    def _until_newline(self, deadline: float) -> bytes:
        while b"\n" not in self._rest:
            self._rest += self._more(deadline)
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _exactly(self, size: int, deadline: float) -> bytes:
        pieces, got = [self._rest], len(self._rest)
        while got < size:
            pieces.append(self._more(deadline))
            got += len(pieces[-1])
        whole = b"".join(pieces)
        self._rest = whole[size:]
        return whole[:size]

    def _more(self, deadline: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            file = self._process.stdout.fileno()
        except ValueError:
            raise _Ended("it was closed") from None
        poll = select.poll()
        poll.register(file, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise Unreachable(f"git takes too long to read {self._folder}")
        data = os.read(file, _CHUNK)
        if not data:
            self._process.kill()
            raise _Ended(self._complaint())
        return data

    def _complaint(self) -> str:
        """What git said when it ended."""
        self._process.wait()
        try:
            self._complaints.seek(0)
            return self._complaints.read().decode(errors="replace").strip()
        except ValueError:
            return "it was closed"


def _identity(folder: Path) -> tuple[tuple[int, int], ...]:
    """What tells a repository from another one that has taken its place."""
    found = []
    for path in (folder, folder / ".git", folder / "objects", folder / ".git" / "objects"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            found.append((stat.st_dev, stat.st_ino))
    return tuple(found)


@lru_cache(maxsize=1)
def shelf(environ: Callable[[], Mapping[str, str]]) -> Shelf:
    """This process's programs."""
    return Shelf(environ)
