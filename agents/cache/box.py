"""A box: the directory through which a step asks and the agent answers.

The step may do with the directory what it likes, so nothing of it is trusted: links are not
followed, sizes are bounded, names are the agent's own.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import stat
import time
from pathlib import Path
from typing import Final, Protocol

from agents.cache.shim import Request, parse

ASK: Final = re.compile(r"([0-9]+\.[0-9]+)\.ask")
MAX_REQUEST_BYTES: Final = 256 * 1024
MAX_REQUESTS: Final = 10_000
_TICK_NS: Final = 100_000_000


class Box(Protocol):
    """Requests of one step. One thread polls and beats; answers may come from others."""

    #: How often it is worth looking, in seconds.
    every_s: float
    #: Whether it cannot be looked into while something is done for its step.
    alone: bool

    def poll(self) -> list[tuple[str, Request]]:
        """Complete requests that were not returned before, with their ids."""

    def answer(self, id_: str, text: str) -> None:
        """Let the step have an answer. Never raises: a step that is gone needs none."""

    def beat(self, count: int) -> None:
        """Say that the agent lives. Never raises."""

    def close(self) -> None:
        """Nothing is asked any more."""


def make_folder(folder: Path, user: pwd.struct_passwd | None = None) -> None:
    """Make a directory that a step may write to, before anything of the step runs."""
    folder.mkdir(parents=True, exist_ok=True)
    if user is not None:
        folder.chmod(0o700)
        os.chown(folder, user.pw_uid, user.pw_gid)
    else:
        folder.chmod(0o777)  # whoever the step is; nobody else gets as far as here


class FolderBox:
    """A directory of this host that `make_folder` made, used as it is or bound into a container."""

    every_s = 0.05
    alone = False

    def __init__(self, folder: Path) -> None:
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._seen: set[str] = set()
        self._changed = 0

    def poll(self) -> list[tuple[str, Request]]:
        """Look into the directory if it changed, or has a request that is not complete."""
        changed = os.fstat(self._folder).st_mtime_ns
        if changed == self._changed:
            return []
        found, open_ones = [], False
        for name in os.listdir(self._folder):  # noqa: PTH208 - by the open directory
            match = ASK.fullmatch(name)
            if match is None or match[1] in self._seen or len(self._seen) >= MAX_REQUESTS:
                continue
            request = self._take(name)
            if request is None:
                open_ones = True
                continue
            self._seen.add(match[1])
            found.append((match[1], request))
        # a file that is made within the same tick of the clock leaves no other time
        fresh = time.time_ns() - changed < _TICK_NS
        self._changed = 0 if open_ones or fresh else changed
        return found

    def _take(self, name: str) -> Request | None:
        """Read a request and empty its file, which stays as the mark of a used id."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(name, flags, dir_fd=self._folder)
        except OSError:  # a link, or gone
            return None
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return None
            request = parse(os.read(file, MAX_REQUEST_BYTES).decode(errors="replace"))
            if request is not None:
                os.ftruncate(file, 0)
            return request
        finally:
            os.close(file)

    def answer(self, id_: str, text: str) -> None:
        """Write the answer, then the sign that it is whole."""
        self._write(f"{id_}.answer", text)
        self._write(f"{id_}.done", "")

    def beat(self, count: int) -> None:
        """Write a number."""
        self._write("beat", f"{count}\n")

    def _write(self, name: str, text: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        draft = f"{name}.new"
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=self._folder)
            with os.fdopen(os.open(draft, flags, 0o644, dir_fd=self._folder), "w") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
            os.rename(draft, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def close(self) -> None:
        """Let go of the directory."""
        folder, self._folder = self._folder, -1
        if folder >= 0:
            os.close(folder)
